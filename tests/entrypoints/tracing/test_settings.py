"""What can be said about traces, and what they cost a gateway that has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prebuilt_apps.openai import api_server
from tests.entrypoints.running_gateway import REPOSITORY
from vfastml.entrypoints.gateway_config import TRACE_SAMPLE, GatewayConfig
from vfastml.entrypoints.tracing.caller import Caller, caller_of

TRACE, SPAN = "ab" * 16, "cd" * 8
COMMAND = [sys.executable, "-m", "prebuilt_apps.openai.api_server", "--port", "0"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector.example/", "https://collector.example/v1/traces"),
        ("http://[::1]:4318/else/where", "http://[::1]:4318/else/where"),
        ("", ""),
    ],
)
def test_the_path_of_otlp_is_added(given: str, kept: str) -> None:
    assert GatewayConfig(trace_endpoint=given).trace_endpoint == kept


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"trace_endpoint": "127.0.0.1:4318"}, "trace_endpoint"),
        ({"trace_endpoint": "grpc://h:4317"}, "trace_endpoint"),
        ({"trace_endpoint": "http://h:99999"}, "trace_endpoint"),
        ({"trace_endpoint": "http://h?x=1"}, "trace_endpoint"),
        ({"trace_endpoint": "http://user:secret@h"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"trace_file": "t", "trace_sample": 1.5}, "trace_sample"),
        ({"trace_file": "t", "trace_sample": float("nan")}, "trace_sample"),
        ({"trace_sample": 0.5}, "trace_file"),
    ],
)
def test_bad_values_are_refused_by_name(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named) as refusal:
        GatewayConfig(**options)  # type: ignore[arg-type]
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "caller"),
    [
        (f"00-{TRACE}-{SPAN}-01", Caller(int(TRACE, 16), int(SPAN, 16), True)),
        (f"00-{TRACE}-{SPAN}-00", Caller(int(TRACE, 16), int(SPAN, 16), False)),
        (f"00-{TRACE}-{SPAN}-03", Caller(int(TRACE, 16), int(SPAN, 16), True)),
        (f"cc-{TRACE}-{SPAN}-01-later", Caller(int(TRACE, 16), int(SPAN, 16), True)),
        (f"00-{TRACE}-{SPAN}-01-later", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("x" * 60_000, None),
        ("", None),
    ],
)
def test_traceparent(value: str, caller: Caller | None) -> None:
    assert caller_of([(b"accept", b"*/*"), (b"traceparent", value.encode())]) == caller


def test_two_traceparents_are_none() -> None:
    header = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
    assert caller_of([header, header]) is None
    assert caller_of([]) is None


def test_a_gateway_without_traces_does_not_load_them() -> None:
    code = (
        "import sys; from vfastml.entrypoints.api_server import Gateway; Gateway().build();"
        "print([name for name in ('opentelemetry.sdk', 'google.protobuf', 'requests') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [COMMAND, [*COMMAND, "--workers", "2"]])
def test_missing_packages_are_one_sentence(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "opentelemetry" / "exporter").mkdir(parents=True)
    missing = "raise ModuleNotFoundError(name='opentelemetry.exporter')"
    (tmp_path / "opentelemetry" / "exporter" / "__init__.py").write_text(missing)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [*command, "--trace-endpoint", "http://127.0.0.1:4318"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment,
    )
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        "python -m prebuilt_apps.openai.api_server: opentelemetry cannot be loaded: install vfastml[trace]"
    ]


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    command = [*COMMAND, "--trace-file", str(tmp_path / "none" / "file")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 2
    [line] = run.stderr.splitlines()
    assert f"the trace file {tmp_path / 'none' / 'file'} cannot be written: No such file or directory" in line


def test_a_share_of_nothing_that_is_the_default_says_nothing_new() -> None:
    options = api_server.build_parser().parse(["--trace-sample", str(TRACE_SAMPLE)])
    assert GatewayConfig(**api_server.settings_of(options)) == GatewayConfig()


def test_a_share_of_nothing_names_the_flags() -> None:
    run = subprocess.run([*COMMAND, "--trace-sample", "0.5"], capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 2
    assert "--trace-sample says nothing without --trace-endpoint or --trace-file" in run.stderr
