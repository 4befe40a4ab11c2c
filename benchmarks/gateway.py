"""What a gateway process can stream, from a model that costs nothing: `python -m benchmarks.gateway`."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import psutil
import uvloop
from rich.console import Console

from benchmarks.completion import PATHS
from benchmarks.cpu_time import cpu_seconds
from benchmarks.errors import BenchmarkError
from benchmarks.event_counter import count_events
from benchmarks.flags import counts, new_parser, positive, recorded
from benchmarks.gateway_processes import GatewayProcesses, running_processes
from benchmarks.gateway_records import LEGEND, GatewayResult, GatewayRun, draw, notes, table
from benchmarks.http_exchange import ServerAddress
from benchmarks.machine import this_machine
from benchmarks.outcome import DEFAULT_FOLDER, print_notes
from benchmarks.stopping import until_stopped

_WARM_UP = (8, 16)
"""Streams and tokens that do not count: the first request of a gateway makes its layers."""
_MESSAGES = [{"role": "user", "content": "Hello!"}]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all went well, 1 nothing could be measured, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    return until_stopped(lambda: _run(args, given))


def _run(args: argparse.Namespace, given: list[str]) -> int:
    machine, date = this_machine(), datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    try:
        with (
            running_processes(args.step_ms, shlex.split(args.gateway_flags)) as processes,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runs = runner.run(_measure_all(processes, args))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    result = GatewayResult(
        date=date,
        command=["python", "-m", "benchmarks.gateway", *recorded(given)],
        settings={
            "tokens": args.tokens,
            "step_ms": args.step_ms,
            "pinned": processes.pinned,
            "gateway_flags": args.gateway_flags,
        },
        machine=machine,
        runs=runs,
    )
    _publish(result, args.output)
    return 0


async def _measure_all(processes: GatewayProcesses, args: argparse.Namespace) -> list[GatewayRun]:
    """Every number of streams once, then all of them again."""
    server = ServerAddress.parse(processes.url, args.api_key)
    endpoints = list(PATHS) if args.endpoint == "both" else [args.endpoint]
    for endpoint in endpoints:
        await _measure(processes, server, endpoint, *_WARM_UP, repeat=0)
    return [
        await _measure(processes, server, endpoint, streams, args.tokens, repeat)
        for repeat in range(1, args.repeats + 1)
        for streams in args.streams
        for endpoint in endpoints
    ]


async def _measure(
    processes: GatewayProcesses, server: ServerAddress, endpoint: str, streams: int, tokens: int, repeat: int
) -> GatewayRun:
    request = server.request("POST", PATHS[endpoint], _body(endpoint, tokens))
    measured = (processes.gateway, processes.model_server, psutil.Process())
    began, cpu_began = time.perf_counter(), [cpu_seconds(process) for process in measured]
    chunks = await count_events(server, [request] * streams)
    wall_s = time.perf_counter() - began
    gateway_s, model_server_s, client_s = (
        cpu_seconds(process) - before for process, before in zip(measured, cpu_began, strict=True)
    )
    return GatewayRun(
        endpoint=endpoint,
        streams=streams,
        repeat=repeat,
        tokens=streams * tokens,
        chunks=chunks,
        wall_s=wall_s,
        gateway_cpu_s=gateway_s,
        model_server_cpu_s=model_server_s,
        client_cpu_s=client_s,
    )


def _body(endpoint: str, tokens: int) -> bytes:
    prompt = {"messages": _MESSAGES} if endpoint == "chat" else {"prompt": "Hello!"}
    return msgspec.json.encode({**prompt, "stream": True, "max_tokens": tokens})


def _publish(result: GatewayResult, folder: Path) -> None:
    console = Console()
    console.print(table(result).rich())
    console.print(LEGEND, highlight=False)
    console.print(f"{result.machine}", highlight=False)
    print_notes(notes(result), console)
    stem = folder / f"gateway-{result.date}"
    result.save(stem.with_suffix(".json"))
    draw(result, stem.with_suffix(".png"))
    console.print(f"written: {stem}.json and .png", highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.gateway", "Streams of a free model through a real gateway.")
    add = parser.add_argument
    add("--streams", type=counts, default="1,16,64", metavar="N,N", help="that run side by side")
    add("--tokens", type=positive, default=256, metavar="N", help="of each stream")
    add("--step-ms", type=float, default=2.0, metavar="MS", help="between two steps of the model; 0: as fast as it can")
    add("--endpoint", choices=(*PATHS, "both"), default="both", help="which API is asked")
    add("--gateway-flags", default="", metavar="FLAGS", help="further flags of the gateway")
    add("--api-key", metavar="KEY", help="sent as a bearer token; never stored")
    add("--repeats", type=positive, default=3, metavar="N", help="runs at each number of streams")
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
