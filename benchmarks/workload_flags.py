"""Flags for what is asked, the same in every program that asks servers."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.flags import positive, ratio
from benchmarks.prompts import Lengths, RandomPrompts, SharedPrefixPrompts, Workload
from benchmarks.questions import QuestionPrompts

RANDOM, QUESTIONS, SHARED_PREFIX = "random", "questions", "shared-prefix"


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    """Which prompts, and how long they and the answers are."""
    add = parser.add_argument
    what = "random words; our own short questions; random words behind a shared beginning"
    add("--prompts", choices=(RANDOM, QUESTIONS, SHARED_PREFIX), default=RANDOM, help=what)
    add(
        "--input-tokens", type=positive, default=128, metavar="N", help="mean length of a prompt; questions have theirs"
    )
    add("--output-tokens", type=positive, default=64, metavar="N", help="mean length of an answer")
    add("--range-ratio", type=ratio, default=0.5, metavar="R", help="lengths are uniform in N*(1-R) to N*(1+R)")
    add("--shared-share", type=ratio, default=0.9, metavar="R", help="shared-prefix: part of a prompt that is shared")
    add("--prefix-groups", type=positive, default=1, metavar="N", help="shared-prefix: different beginnings in a run")


def workload_of(args: argparse.Namespace) -> Workload:
    """As the flags say."""
    lengths = Lengths(args.input_tokens, args.output_tokens, args.range_ratio)
    if args.prompts == QUESTIONS:
        return QuestionPrompts(lengths)
    if args.prompts == SHARED_PREFIX:
        return SharedPrefixPrompts(lengths, args.shared_share, args.prefix_groups)
    return RandomPrompts(lengths)


def workload_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that matter, for the record."""
    names = ["prompts", "output_tokens", "range_ratio"]
    names += ["shared_share", "prefix_groups"] if args.prompts == SHARED_PREFIX else []
    settings = {name: getattr(args, name) for name in names}
    return settings | {"input_tokens": None if args.prompts == QUESTIONS else args.input_tokens}
