"""`python -m prebuilt_apps.openai.model_server`: a text model behind the wire, by default the built-in one."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from collections.abc import Sequence
from typing import Any

from prebuilt_apps import flag_types
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.extras import import_part
from prebuilt_apps.flags import FlagParser, Repeated, add_max_step_flag, add_process_flags, add_wire_keys_flag
from vfastml.model_store import DEFAULT_MODEL
from vfastml.models_servers.admission import MAX_WAITING, MAX_WAITING_TOKENS
from vfastml.text_engine.chat_dialect import REASONING_PARSERS, TOOL_CALL_PARSERS
from vfastml.text_engine.engine_config import (
    ATTENTION_BACKENDS,
    DECODERS,
    LOAD_FORMATS,
    MEASURING,
    QUANTIZATIONS,
    EngineConfig,
)
from vfastml.utils.logging import configure_logging

logger = logging.getLogger("vfastml.prebuilt_apps.openai.model_server")

_PROG = "python -m prebuilt_apps.openai.model_server"
READY_FLAG = "--ready-fd"
"""A descriptor that gets one line when the model is ready."""


class _LoadKwargs(argparse.Action):
    """Refuses a token. It is called for the command line alone: a variable is not shown in the list of processes."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values.get("token") is not None:
            raise argparse.ArgumentError(
                self, "other users see a token in the list of processes: put it into the variable HF_ACCESS_TOKEN"
            )
        setattr(namespace, self.dest, values)


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """The model server's own flags (also those of `python -m prebuilt_apps.openai`)."""
    add = parser.add_argument
    uris = "builtin:NAME, a folder (./NAME), a GGUF file or a hub id"
    add("--model-uri", default=DEFAULT_MODEL, metavar="URI", help=uris)
    add("--served-model-name", action=Repeated, metavar="NAME", help="name for clients; repeatable")
    add("--device", default="auto", help="auto, cpu or cuda:N")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="of weights and KV cache")
    add("--decoder", default="auto", choices=DECODERS, help="auto takes the fastest that can run the model")
    attends = "what computes attention; auto takes the fastest that runs here"
    add("--attention-backend", default="auto", choices=ATTENTION_BACKENDS, help=attends)
    quantized = "8-bit weights and activations: int8 on a CPU, fp8 on a GPU from Ada and Hopper on; default: none"
    add("--quantization", choices=QUANTIZATIONS, help=quantized)
    dummy = "dummy makes random weights in the shapes of config.json, to measure speed with"
    add("--load-format", default="auto", choices=LOAD_FORMATS, help=dummy)
    add("--rpc-host", default="127.0.0.1", metavar="HOST", help="address that gateways connect to")
    free = "port that gateways connect to; 0 takes a free one"
    add("--rpc-port", type=flag_types.port, default=6500, metavar="PORT", help=free)
    ipc = "socket file that gateways of this machine connect to, in a folder of its own, instead of host and port"
    add("--rpc-ipc", metavar="PATH", help=ipc)
    add(
        "--model-load-kwargs",
        action=_LoadKwargs,
        type=flag_types.json_object,
        metavar="JSON",
        help="an object of what loading takes; a token for the hub belongs into HF_ACCESS_TOKEN",
    )
    add(
        "--model-forward-kwargs",
        type=flag_types.json_object,
        metavar="JSON",
        help="an object of defaults that a request may override, such as '{\"top_p\": 0.9}'",
    )
    _add_gpu(parser)
    _add_chat(parser)
    add("--profile", metavar="DIR", help="trace a few warm steps with torch's profiler, into a file in this folder")
    _add_sizes(parser)
    _add_queue_bounds(parser)


def _add_gpu(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    graphs = "launch each kernel of a decode step on a GPU, instead of replaying recorded ones"
    add("--no-cuda-graphs", action="store_true", help=graphs)
    add("--no-overlap", action="store_true", help="wait for each step on a GPU before the next one is made ready")


def _add_chat(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    add(
        "--chat-template",
        type=flag_types.text_file,
        metavar="FILE",
        help="a Jinja template for messages; default: the model's own",
    )
    shows = "auto sees it in the chat template"
    add("--tool-call-parser", default="auto", choices=TOOL_CALL_PARSERS, help=f"how tool calls are written; {shows}")
    add("--reasoning-parser", default="auto", choices=REASONING_PARSERS, help=f"how reasoning is marked; {shows}")


def _add_sizes(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    count = flag_types.positive
    add("--max-model-len", type=count, metavar="TOKENS", help="of prompt and answer together; default: the model's")
    add("--max-num-seqs", type=count, metavar="N", help="sequences in the running batch; default: measured")
    add("--max-num-batched-tokens", type=count, metavar="TOKENS", help="computed in one step; default: measured")
    add(
        "--kv-cache-memory",
        type=flag_types.memory,
        metavar="SIZE",
        help="such as 300MB, 1GiB or plain bytes; default: a quarter of the free memory up to 2GiB, on a GPU 85%% less "
        "what steps need, or what --gpu-memory leaves",
    )
    add(
        "--gpu-memory",
        type=flag_types.gpu_memory,
        metavar="SIZE",
        help="all that this server takes of a GPU: a share of it such as 0.5, or such as 10GiB; default: no bound",
    )
    _add_targets(parser)


def _add_targets(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    span = flag_types.milliseconds
    add(
        "--target-tpot-ms",
        type=span,
        metavar="MS",
        help="measured sizes keep a text's tokens within so long, at 128 tokens of context",
    )
    add("--target-ttft-ms", type=span, metavar="MS", help="measured sizes let one step compute a prompt within so long")
    add(
        "--measure-limits",
        default="auto",
        choices=MEASURING,
        help="time steps for sizes that are not given: at the first start of this model here, never, or again",
    )


def _add_queue_bounds(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    count = flag_types.not_negative
    waiting = "texts that may wait for a place in the batch; a request that would be one more is refused with 429"
    add("--max-waiting", type=count, default=MAX_WAITING, metavar="N", help=waiting)
    add(
        "--max-waiting-tokens",
        type=count,
        default=MAX_WAITING_TOKENS,
        metavar="TOKENS",
        help="that all that wait may come to, prompts and max_tokens together",
    )


def build_parser(prog: str = _PROG) -> FlagParser:
    """All flags, with their defaults in the help."""
    parser = FlagParser(prog, "Serves one text model to the gateways that connect.")
    add_arguments(parser)
    add_wire_keys_flag(parser)
    add_max_step_flag(parser)
    add_process_flags(parser)
    # Between `vfastml serve` and this process.
    parser.add_argument(READY_FLAG, type=flag_types.positive, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def load_kwargs(options: argparse.Namespace) -> dict[str, Any]:
    """What loading takes, `--dtype` included. Raises ValueError if that is named twice."""
    given: dict[str, Any] = options.model_load_kwargs or {}
    if options.dtype == "auto":
        return given
    if {"dtype", "torch_dtype"} & set(given):
        raise ValueError("--dtype and --model-load-kwargs both name a dtype: give one")
    return {**given, "dtype": options.dtype}


def check_wire(options: argparse.Namespace) -> None:
    """Raises ValueError for flags that contradict each other."""
    if options.rpc_ipc is not None and options.wire_keys is not None:
        raise ValueError("--rpc-ipc needs no --wire-keys: the folder's mode keeps others out; give one of them")


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> None:
    """Runs until SIGTERM or Ctrl-C."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    try:
        model_load_kwargs = load_kwargs(options)
        check_wire(options)
    except ValueError as error:
        parser.error(str(error))
    configure_logging(options.log_level, options.log_format, "model-server")
    for number in (signal.SIGINT, signal.SIGTERM):
        # Until run_forever owns them. An exit would be an exception, and the libraries' imports swallow some.
        signal.signal(number, lambda *_: os._exit(0))
    logger.info("loading torch and transformers")
    # seconds that --help and a wrong flag need not wait for
    module = "vfastml.models_servers.model_server_text_hf"
    import_part(module, extra="model", prog=prog, needs=("torch",)).TextGenerationModelServerHF(
        model_uri=options.model_uri,
        model_device=options.device,
        model_load_kwargs=model_load_kwargs,
        model_forward_kwargs=options.model_forward_kwargs,
        engine_config=EngineConfig(
            max_model_len=options.max_model_len,
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            kv_cache_memory=options.kv_cache_memory,
            gpu_memory=options.gpu_memory,
            target_tpot_ms=options.target_tpot_ms,
            target_ttft_ms=options.target_ttft_ms,
            measure_limits=options.measure_limits,
            decoder=options.decoder,
            attention_backend=options.attention_backend,
            quantization=options.quantization,
            load_format=options.load_format,
            cuda_graphs=not options.no_cuda_graphs,
            overlap=not options.no_overlap,
            chat_template=options.chat_template,
            tool_call_parser=options.tool_call_parser,
            reasoning_parser=options.reasoning_parser,
        ),
        trace_folder=options.profile,
        max_waiting=options.max_waiting,
        max_waiting_tokens=options.max_waiting_tokens,
        served_model_names=options.served_model_name or (),
        rpc_host=options.rpc_host,
        rpc_port=options.rpc_port,
        rpc_ipc=options.rpc_ipc,
        wire_keys=options.wire_keys,
        insecure=options.insecure,
        drain_timeout_s=options.drain_timeout,
        max_step_s=options.max_step,
        ready_fd=getattr(options, "ready_fd", None),
        log_level=options.log_level,
        log_format=options.log_format,
    ).run_forever()


if __name__ == "__main__":
    main()
