"""What a scrape says: the counts of what clients saw, in the two text formats, and nothing that is secret."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics

from tests.docs.markdown import DOCS, Row, code_spans, table
from tests.entrypoints.metrics.observed_service import KEY, ObservedService, families_of
from vfastml import __version__


def test_counts_are_those_that_clients_saw(played: ObservedService) -> None:
    of_model = {"model_name": "talker", "engine": played.engine}
    prompt = sum(usage.prompt_tokens for usage in played.usages)
    completion = sum(usage.completion_tokens for usage in played.usages)
    assert len(played.usages) == 2
    # The broken one was accepted, with a prompt of one token.
    assert played.value("vfastml:prompt_tokens_total", **of_model) == prompt + 1
    assert played.value("vfastml:generation_tokens_total", **of_model) == completion
    assert played.value("vfastml:request_success_total", finished_reason="stop", **of_model) == 2
    assert played.value("vfastml:request_failures_total", kind="InternalServerError", **of_model) == 1
    assert played.value("vfastml:request_failures_total", kind="RateLimitError", **of_model) == 1
    assert played.value("vfastml:request_failures_total", kind="ModelNotFoundError", model_name="") == 1


def test_a_key_is_known_by_its_name(played: ObservedService) -> None:
    [sample] = played.scrape()["vfastml:key_generation_tokens"].samples
    assert sample.value == sum(usage.completion_tokens for usage in played.usages)
    assert sample.labels["key"].startswith("key-")
    assert played.value("vfastml:key_requests_total") == 5


def test_latencies_are_those_of_the_model_server(played: ObservedService) -> None:
    for name, seconds in (("queue_time", 0.5), ("prefill_time", 1.5), ("decode_time", 2.0)):
        assert played.value(f"vfastml:request_{name}_seconds_sum") == 2 * seconds
        assert played.value(f"vfastml:request_{name}_seconds_count") == 2
    assert played.value("vfastml:request_time_per_output_token_seconds_sum") == pytest.approx(2 * 2.0 / 3)
    assert played.value("vfastml:e2e_request_latency_seconds_count") == 2


def test_the_beats_are_told(played: ObservedService) -> None:
    of_model = {"model_name": "talker", "engine": played.engine}
    assert played.value("vfastml:num_requests_running", **of_model) == 3
    assert played.value("vfastml:num_requests_waiting", **of_model) == 2
    assert played.value("vfastml:kv_cache_usage_perc", **of_model) == 0.25
    assert played.value("vfastml:num_preemptions_total", **of_model) == 7
    assert played.value("vfastml:prefix_cache_queries_total", **of_model) == 50
    assert played.value("vfastml:prefix_cache_hits_total", **of_model) == 20
    assert played.value("vfastml:engine_up", **of_model) == 1
    assert played.value("vfastml:engine_state", state="live", **of_model) == 1
    assert played.value("vfastml:engine_state", **of_model) == 1


def test_http_is_counted_by_route(played: ObservedService) -> None:
    count = "vfastml:http_requests_total"
    assert played.value(count, route="/v1/completions", method="POST", status="200") == 2
    assert played.value(count, route="/v1/completions", status="429") == 1
    assert played.value(count, route="/v1/models", method="GET", status="401") == 1
    assert played.value(count, route="other", method="GET", status="404") == 1
    assert played.value("vfastml:http_requests_open") == 0
    assert played.value("vfastml:admission_rejections_total", reason="no_key") == 1
    assert played.value("vfastml:admission_rejections_total", reason="queue_full") == 1
    assert played.value("vfastml:admission_rejections_total") == 2


def test_the_process_and_its_version(played: ObservedService) -> None:
    assert played.value("vfastml:build_info", version=__version__) == 1
    assert played.value("process_resident_memory_bytes") > 1 << 20
    assert played.value("process_open_fds") > 0


def test_nothing_secret_is_in_it(played: ObservedService) -> None:
    text = played.exposition()
    assert KEY not in text
    assert not [word for word in ("confidential", "somebody") if word in text]


def test_both_text_formats(played: ObservedService) -> None:
    answer = httpx.get(f"{played.admin_url}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["content-encoding"] == "gzip"
    asked = {"accept": "application/openmetrics-text;version=1.0.0", "accept-encoding": "identity"}
    answer = httpx.get(f"{played.admin_url}/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "content-encoding" not in answer.headers
    names = {family.name for family in openmetrics.text_string_to_metric_families(answer.text)}
    assert names == set(families_of(played.exposition()))


def test_the_table_in_the_documentation_is_the_scrape(played: ObservedService) -> None:
    families = played.scrape()
    written = {code_spans(name)[0]: (kind, labels, says) for name, kind, labels, says in _rows()}
    assert set(written) == set(families)
    for name, (kind, labels, says) in written.items():
        assert kind == families[name].type, name
        assert says == families[name].documentation, name
        assert set(code_spans(labels)) == {*_labels_of(families[name].samples)}, name


def _labels_of(samples: list) -> set[str]:
    return {label for sample in samples for label in sample.labels} - {"le"}


def _rows() -> list[Row]:
    return table((DOCS / "metrics.md").read_text(), "Metric")
