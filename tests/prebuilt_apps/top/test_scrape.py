"""What is read of `/metrics` and `/load`."""

from __future__ import annotations

import msgspec
import pytest

from prebuilt_apps.cli.top.load_page import parse_load
from prebuilt_apps.cli.top.scrape import START, NotMetricsError, Series, parse_metrics

TEXT = """\
# HELP vfastml:request_success_total Answered.
# TYPE vfastml:request_success_total counter
vfastml:request_success_total{model_name="m",finished_reason="stop"} 4.0
# TYPE vfastml:held_requests gauge
vfastml:held_requests 2.0
# TYPE vfastml:e2e_request_latency_seconds histogram
vfastml:e2e_request_latency_seconds_bucket{le="0.5"} 3.0
vfastml:e2e_request_latency_seconds_bucket{le="+Inf"} 5.0
vfastml:e2e_request_latency_seconds_count 5.0
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.7e9
# TYPE process_open_fds gauge
process_open_fds 9.0
"""


def test_our_series_and_the_start() -> None:
    assert parse_metrics(TEXT) == {
        Series.of("request_success_total", model_name="m", finished_reason="stop"): 4,
        Series("held_requests"): 2,
        Series.of("e2e_request_latency_seconds_bucket", le="0.5"): 3,
        Series.of("e2e_request_latency_seconds_bucket", le="+Inf"): 5,
        Series("e2e_request_latency_seconds_count"): 5,
        Series(START): 1.7e9,
    }


def test_labels() -> None:
    series = Series.of("a", model="m", engine="e")
    assert series == Series.of("a", engine="e", model="m")
    assert (series.label("model"), series.label("le")) == ("m", None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>hello</html>\n",
        '{"error": {}}',
        'vfastml:a{b="c} 1',
        "vfastml:a one\n",
        "process_start_time_seconds 1.7e9\n",
        "vllm:num_requests_running 1\n",
    ],
)
def test_what_is_no_scrape_of_ours(text: str) -> None:
    with pytest.raises(NotMetricsError):
        parse_metrics(text)


def test_load() -> None:
    page = parse_load(
        b'{"running": 1, "servers": [{"endpoint": "tcp://a:1", "state": "loading", "phase": "loading weights",'
        b' "progress": 0.4, "load": {"running": 1, "steps": 9}, "models": [], "device": "cpu"}]}'
    )
    [server] = page.servers
    assert (server.phase, server.progress, server.load.running, server.is_heard) == ("loading weights", 0.4, 1, False)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"servers": [{"state": 4}]}', b'{"servers": 1}'])
def test_what_is_no_load(content: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        parse_load(content)
