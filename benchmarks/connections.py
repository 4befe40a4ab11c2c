"""How many clients one gateway process carries: `python -m benchmarks.connections`.

Streams of a model that costs nothing run beside connections that only stay open, as browsers and pools keep them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop
from rich.console import Console

from benchmarks.connection_clients import IdleConnection, TimedStream, open_connections
from benchmarks.connection_records import LEGEND, ConnectionResult, ConnectionRun, draw, notes, table
from benchmarks.cpu_time import cpu_seconds
from benchmarks.errors import BenchmarkError
from benchmarks.flags import counts, new_parser, not_negative, positive, recorded
from benchmarks.gateway_processes import GatewayProcesses, running_processes
from benchmarks.http_exchange import OK, ExchangeError, ServerAddress, exchange
from benchmarks.machine import this_machine
from benchmarks.metrics import percentile
from benchmarks.outcome import DEFAULT_FOLDER, print_notes
from benchmarks.stopping import until_stopped
from vfastml.entrypoints.descriptors import raise_descriptor_limit

_PATH = "/v1/completions"
_WARM_UP = (8, 16)
"""Streams and tokens that do not count: the first request of a gateway makes its layers."""
_SPARE_DESCRIPTORS = 200
_BETWEEN_PROBES_S = 0.02


class Level(NamedTuple):
    """What one run opens."""

    idle: int
    streams: int


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all went well, 1 something failed or nothing could be measured, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    return until_stopped(lambda: _run(args, given))


def _run(args: argparse.Namespace, given: list[str]) -> int:
    machine, date = this_machine(), datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    try:
        _raise_descriptor_limit(max(args.streams) + max(args.idle))
        with (
            running_processes(args.step_ms) as processes,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runs = runner.run(_measure_all(processes, args))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    result = ConnectionResult(
        date=date,
        command=["python", "-m", "benchmarks.connections", *recorded(given)],
        settings={"tokens": args.tokens, "step_ms": args.step_ms, "pinned": processes.pinned},
        machine=machine,
        runs=runs,
    )
    _publish(result, args.output)
    return 1 if any(run.failed or run.idle_lost for run in runs) else 0


def _raise_descriptor_limit(connections: int) -> None:
    """For this process, and for the gateway, which inherits it."""
    needed = connections + _SPARE_DESCRIPTORS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchmarkError(
            f"{needed} open files are needed and {hard} are allowed: raise `ulimit -Hn`, or ask for less."
        )
    raise_descriptor_limit()


async def _measure_all(processes: GatewayProcesses, args: argparse.Namespace) -> list[ConnectionRun]:
    """Every level once, then all of them again."""
    warm_up_streams, warm_up_tokens = _WARM_UP
    await _measure(processes, Level(0, warm_up_streams), warm_up_tokens, repeat=0)
    return [
        await _measure(processes, Level(idle, streams), args.tokens, repeat)
        for repeat in range(1, args.repeats + 1)
        for idle in args.idle
        for streams in args.streams
    ]


async def _measure(processes: GatewayProcesses, level: Level, tokens: int, repeat: int) -> ConnectionRun:
    server = ServerAddress.parse(processes.url)
    async with _idle_connections(server, level.idle) as (idle, opened_s):
        began, cpu_began = time.perf_counter(), cpu_seconds(processes.gateway)
        streams, probes_s = await _stream(server, level.streams, tokens)
        return ConnectionRun(
            streams=level.streams,
            idle=level.idle,
            repeat=repeat,
            opened_s=opened_s,
            idle_lost=sum(not connection.is_open for connection in idle),
            failed=sum(not stream.whole for stream in streams),
            chunks=sum(stream.events for stream in streams),
            wall_s=time.perf_counter() - began,
            first_p50_s=_percentile([stream.first_s for stream in streams], 50),
            first_p99_s=_percentile([stream.first_s for stream in streams], 99),
            gap_p99_s=_percentile([stream.longest_gap_s for stream in streams], 99),
            probe_p50_s=_percentile(probes_s, 50),
            probe_p99_s=_percentile(probes_s, 99),
            gateway_cpu_s=cpu_seconds(processes.gateway) - cpu_began,
            gateway_rss_mb=processes.gateway.memory_info().rss / 1e6,
            gateway_descriptors=processes.gateway.num_fds(),
        )


@contextlib.asynccontextmanager
async def _idle_connections(server: ServerAddress, count: int) -> AsyncIterator[tuple[list[IdleConnection], float]]:
    """Open and answered once, with the seconds that it took; closed at the end."""
    request = f"GET /livez HTTP/1.1\r\nhost: {server.host}:{server.port}\r\n\r\n".encode()
    began = time.perf_counter()
    idle = await open_connections(server, count, lambda: IdleConnection(request))
    for connection in idle:
        await connection.answered
    try:
        yield idle, time.perf_counter() - began
    finally:
        for connection in idle:
            connection.close()


async def _stream(server: ServerAddress, count: int, tokens: int) -> tuple[list[TimedStream], list[float]]:
    """The streams, when all have ended, and how long short requests took meanwhile."""
    request = server.request("POST", _PATH, _body(tokens, stream=True))
    streams = await open_connections(server, count, lambda: TimedStream(request))
    for stream in streams:
        stream.ask()
    probing = asyncio.create_task(_probe(server, streams))
    for stream in streams:
        await stream.ended
    return streams, await probing


async def _probe(server: ServerAddress, streams: Sequence[TimedStream]) -> list[float]:
    """Seconds of each short request: at least one."""
    body = _body(1, stream=False)
    seconds: list[float] = []
    while not seconds or not all(stream.ended.done() for stream in streams):
        began = time.perf_counter()
        try:
            answer = await exchange(server, "POST", _PATH, body)
        except ExchangeError as error:
            raise BenchmarkError(f"A short request beside the streams failed: {error}.") from error
        if answer.status != OK:
            raise BenchmarkError(f"A short request beside the streams failed: status {answer.status}.")
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(_BETWEEN_PROBES_S)
    return seconds


def _percentile(values: Sequence[float | None], percent: float) -> float:
    known = percentile([value for value in values if value is not None], percent)
    if known is None:
        raise BenchmarkError("No stream brought anything; see what the gateway has logged above.")
    return known


def _body(tokens: int, *, stream: bool) -> bytes:
    return msgspec.json.encode({"prompt": "Hello!", "stream": stream, "max_tokens": tokens})


def _publish(result: ConnectionResult, folder: Path) -> None:
    console = Console()
    console.print(table(result).rich())
    console.print(LEGEND, highlight=False)
    console.print(f"{result.machine}", highlight=False)
    print_notes(notes(result), console)
    stem = folder / f"connections-{result.date}"
    result.save(stem.with_suffix(".json"))
    draw(result, stem.with_suffix(".png"))
    console.print(f"written: {stem}.json and .png", highlight=False, soft_wrap=True)


def _idle_counts(text: str) -> list[int]:
    """Whole numbers, ascending, with commas between them."""
    return sorted({not_negative(part) for part in text.split(",")})


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "python -m benchmarks.connections", "Streams beside many idle connections, on one gateway process."
    )
    add = parser.add_argument
    add("--streams", type=counts, default="1,100,1000", metavar="N,N", help="that run side by side")
    add("--idle", type=_idle_counts, default="0,10000", metavar="N,N", help="connections that only stay open")
    add("--tokens", type=positive, default=100, metavar="N", help="of each stream")
    add("--step-ms", type=float, default=100.0, metavar="MS", help="between two steps of the model")
    add("--repeats", type=positive, default=1, metavar="N", help="runs of each pair of numbers")
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
