"""Who takes part in a comparison, and who cannot."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.entrants import Asker, Entrant, Offline, RunningServer, StartedServer
from benchmarks.errors import BenchmarkError
from benchmarks.hf_labels import METHODS
from benchmarks.peers import OWN, PEERS, NotAvailable, Peer, Task, Tools
from benchmarks.prompts import Lengths
from benchmarks.workload_flags import RANDOM

NAMES = (*PEERS, *METHODS)
"""The peers that can be asked for by name."""


def named(text: str) -> tuple[str, str]:
    """`NAME=VALUE` of a command line."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError("expected NAME=...")
    return name, value


def peer_names(text: str) -> list[str]:
    """Names of peers with commas between them; none is possible."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in found if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is unknown: use {', '.join(NAMES)}")
    return found


@dataclass
class Lineup:
    """In the order of the table: the first is this server, without further flags unless a variant has its name."""

    entrants: list[Entrant] = field(default_factory=list)
    variants: set[str] = field(default_factory=set)
    """Labels of this server with other flags."""
    flags: dict[str, str] = field(default_factory=dict)
    """By label, of those that are started with any."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why."""


def line_up(args: argparse.Namespace, task: Task, asker: Asker, logs: Path) -> Lineup:
    """Everybody that the command line names. Raises BenchmarkError for a name that comes twice."""
    lineup = Lineup()
    tools = Tools(args.vllm, args.llama_server, args.gguf)

    def started(label: str, peer: Peer, flags: str = "") -> StartedServer:
        return StartedServer(
            label,
            peer,
            tools,
            task,
            asker,
            logs / f"{label}.log",
            flags=shlex.split(flags),
            start_timeout_s=args.start_timeout,
            keep_running=args.keep_running,
        )

    flags_by_label = {OWN.name: ""} | dict(args.variant)
    lineup.entrants += [started(label, OWN, flags) for label, flags in flags_by_label.items()]
    lineup.flags = {label: flags for label, flags in flags_by_label.items() if flags}
    lineup.variants = {*flags_by_label} - {OWN.name}
    urls = dict(args.peer)
    for name in args.peers:
        if name in urls:
            continue
        try:
            if name in METHODS:
                lineup.entrants.append(_offline(name, args, task, asker, logs))
            else:
                lineup.entrants.append(started(name, PEERS[name]))
        except NotAvailable as reason:
            lineup.skipped[name] = str(reason)
    lineup.entrants += [RunningServer(name, url, asker) for name, url in urls.items()]
    _check_labels([entrant.label for entrant in lineup.entrants])
    return lineup


def _offline(name: str, args: argparse.Namespace, task: Task, asker: Asker, logs: Path) -> Offline:
    if args.prompts != RANDOM:
        raise NotAvailable("offline, there are random prompts only")
    lengths = Lengths(args.input_tokens, args.output_tokens, args.range_ratio)
    return Offline(name, task, asker.plan, lengths, logs / f"{name}.log")


def _check_labels(labels: list[str]) -> None:
    for label in labels:
        if labels.count(label) > 1:
            raise BenchmarkError(f"Two of the servers are called {label}; give one of them another name.")
        if "/" in label:
            raise BenchmarkError(f"{label} cannot be the name of a server: it is the name of a file too.")
