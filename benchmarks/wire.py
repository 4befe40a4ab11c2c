"""What the wire costs: `python -m benchmarks.wire`. Frames of one size from a gateway's socket to a model server's and
back, in clear text, with keys, and over a socket file."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from prebuilt_apps.cli.wire_folders import WireFolders
from vfastml.engine import wire
from vfastml.engine.wire_keys import GatewayKeys, ServerKeys
from vfastml.models_servers.wire_guard import WireGuard

_WINDOW = 200
"""Frames that are under way at a time: fewer than the sockets' queues hold."""


@contextmanager
def echo(kind: str, folder: Path) -> Iterator[zmq.Socket[bytes]]:
    """A gateway's socket that is connected to a model server's, which sends everything back."""
    keys = ServerKeys(folder / "server-main") if kind == "curve" else None
    of_gateway = GatewayKeys(folder / "gateway-main").keys_for("tcp://127.0.0.1:1") if keys else None
    with zmq.Context() as served, zmq.Context() as context:
        guard = WireGuard(served, keys) if keys else None
        if kind == "ipc":
            router = wire.bind_ipc_router(served, str(folder / "wire"))
            endpoint = f"ipc://{folder / 'wire'}"
        else:
            router = wire.bind_router(served, "127.0.0.1", 0, keys.pair if keys else None)
            endpoint = f"tcp://127.0.0.1:{wire.bound_port(router)}"
        stop = threading.Event()
        thread = threading.Thread(target=_send_back, args=(router, guard, stop))
        thread.start()
        dealer = wire.open_dealer(context.socket(zmq.DEALER), endpoint, "gateway", of_gateway)
        try:
            yield dealer
        finally:
            stop.set()
            thread.join()
            for socket in (dealer, router, *([guard.socket] if guard else [])):
                socket.close(linger=0)


def _send_back(router: zmq.Socket[bytes], guard: WireGuard | None, stop: threading.Event) -> None:
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    if guard is not None:
        poller.register(guard.socket, zmq.POLLIN)
    while not stop.is_set():
        ready = dict(poller.poll(100))
        if guard is not None and guard.socket in ready:
            guard.answer()
        try:
            while router in ready:
                message = router.recv_multipart(zmq.NOBLOCK) if guard is None else guard.receive(router)
                router.send_multipart(message)
        except zmq.Again:
            continue


def frames_per_second(dealer: zmq.Socket[bytes], size: int, count: int) -> tuple[float, float]:
    """There and back, many under way; and the microseconds of CPU time that each took, at both ends together."""
    frame = bytes(size)
    began, began_cpu = time.perf_counter(), time.process_time()
    for number in range(count + _WINDOW):
        if number < count:
            dealer.send(frame)
        if number >= _WINDOW:
            dealer.recv()
    return count / (time.perf_counter() - began), (time.process_time() - began_cpu) * 1e6 / count


def round_trips_us(dealer: zmq.Socket[bytes], size: int, count: int) -> list[float]:
    """Of one frame at a time, sorted."""
    frame, spans = bytes(size), []
    for _ in range(count):
        began = time.perf_counter()
        dealer.send(frame)
        dealer.recv()
        spans.append((time.perf_counter() - began) * 1e6)
    return sorted(spans)


def main() -> None:
    """Prints one row for each kind and size: medians of the turns, and lowest to highest."""
    parser = argparse.ArgumentParser("python -m benchmarks.wire", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 8192], metavar="BYTES")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5, help="of all kinds, one after the other")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        WireFolders(Path(scratch)).make("main", ["main"])
        for size in options.sizes:
            rates: dict[str, list[float]] = {"tcp": [], "curve": [], "ipc": []}
            spent: dict[str, list[float]] = {kind: [] for kind in rates}
            trips: dict[str, list[float]] = {kind: [] for kind in rates}
            for _ in range(options.turns):
                for kind in rates:
                    with echo(kind, Path(scratch)) as dealer:
                        frames_per_second(dealer, size, _WINDOW)  # until all is connected
                        rate, cpu_us = frames_per_second(dealer, size, options.frames)
                        rates[kind].append(rate)
                        spent[kind].append(cpu_us)
                        trips[kind].append(statistics.median(round_trips_us(dealer, size, options.frames // 10)))
            for kind in rates:
                print(
                    f"{size} bytes, {kind}: {_span(rates[kind])} frames/s, {_span(spent[kind])} us of CPU a frame, "
                    f"round trip {_span(trips[kind])} us"
                )


def _span(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


if __name__ == "__main__":
    main()
