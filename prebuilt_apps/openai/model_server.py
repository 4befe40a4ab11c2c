"""`python -m prebuilt_apps.openai.model_server`: a text model behind the wire, by default the built-in one."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from prebuilt_apps.openai.process_flags import add_process_flags, new_parser, port
from vfastml.model_store import DEFAULT_MODEL
from vfastml.text_engine.engine_config import EngineConfig, parse_memory
from vfastml.utils.logging import configure_logging

logger = logging.getLogger("vfastml.prebuilt_apps.openai.model_server")


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """The model server's own flags (also those of `python -m prebuilt_apps.openai`)."""
    add = parser.add_argument
    add("--model-uri", default=DEFAULT_MODEL, help="builtin:NAME, a folder (./NAME), a GGUF file or a hub id")
    add("--served-model-name", action="append", default=[], metavar="NAME", help="name for clients; repeatable")
    add("--device", default="auto", help="auto, cpu or cuda:N")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="of weights and KV cache")
    add("--rpc-host", default="127.0.0.1", help="address that gateways connect to")
    add("--rpc-port", type=port, default=6500, help="port that gateways connect to; 0 takes a free one")
    add("--max-model-len", type=_positive, metavar="TOKENS", help="of prompt and answer together; default: the model's")
    add("--max-num-seqs", type=_positive, metavar="N", help="sequences in the running batch; default 64, on a GPU 256")
    add(
        "--max-num-batched-tokens",
        type=_positive,
        metavar="TOKENS",
        help="tokens computed in one step; default 128 (float32: 64), on a GPU 8192",
    )
    add(
        "--kv-cache-memory",
        type=_memory,
        metavar="SIZE",
        help="such as 300MB, 1GiB or plain bytes; default: a quarter of the free memory up to 2GiB, on a GPU 85%%",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _memory(text: str) -> int:
    try:
        return parse_memory(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def build_parser() -> argparse.ArgumentParser:
    """All flags, with their defaults in the help."""
    parser = new_parser(
        "python -m prebuilt_apps.openai.model_server", "Serves one text model to the gateways that connect."
    )
    add_arguments(parser)
    add_process_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs until SIGTERM or Ctrl-C."""
    args = build_parser().parse_args(argv)
    configure_logging(args.log_level)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())  # until run_forever owns them
    logger.info("loading torch and transformers")
    # seconds that --help and a wrong flag need not wait for
    server_class = import_module("vfastml.models_servers.model_server_text_hf").TextGenerationModelServerHF
    server_class(
        model_uri=args.model_uri,
        model_device=args.device,
        model_load_kwargs={"dtype": args.dtype},
        engine_config=EngineConfig(
            max_model_len=args.max_model_len,
            max_num_seqs=args.max_num_seqs,
            max_num_batched_tokens=args.max_num_batched_tokens,
            kv_cache_memory=args.kv_cache_memory,
        ),
        served_model_names=args.served_model_name,
        rpc_host=args.rpc_host,
        rpc_port=args.rpc_port,
        insecure=args.insecure,
        drain_timeout_s=args.drain_timeout,
        log_level=args.log_level,
    ).run_forever()


if __name__ == "__main__":
    main()
