"""What is measured of single requests, by a clock that the test turns."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from vfastml.engine.dispatch_replies import Accepted, Delta, Failed, Finished, Output, Timings, Tokenized, Usage
from vfastml.engine.dispatch_requests import OneShotReq, TextGenerationReq, TokenizeReq, WorkReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.metrics.held_requests import HeldRequests
from vfastml.entrypoints.metrics.request_metrics import RequestMetrics
from vfastml.entrypoints.metrics.token_tally import SummedHistogram, TokenTally
from vfastml.errors import QuotaLimitError, RequestCancelledError

ENGINE = "127.0.0.1:6500"


def nothing_held() -> HeldRequests:
    return HeldRequests(None, lambda: 0)


class Measured:
    """One request, and the clock."""

    def __init__(self, request: WorkReq | None = None, tenant: Tenant | None = None) -> None:
        self.registry = CollectorRegistry()
        self.now_s = 100.0
        metrics = RequestMetrics(self.registry, nothing_held(), clock=lambda: self.now_s)
        self.task = DispatchTask(
            request or TextGenerationReq(request_id="r", prompt="p"), lambda _: None, [metrics], tenant
        )
        self.task.dispatched_s = self.now_s
        metrics.on_dispatched(self.task)
        self.task.model, self.task.endpoint = "m", f"tcp://{ENGINE}"

    def delta(self, after_s: float, num_tokens: int, index: int = 0, finish_reason: str | None = None) -> None:
        self.now_s += after_s
        self.task.add_delta(Delta("r", index, "x", finish_reason=finish_reason, num_tokens=num_tokens))

    def value(self, name: str, **labels: str) -> float | None:
        of_model = {"model_name": "m", "engine": ENGINE}
        return self.registry.get_sample_value(f"vfastml:{name}", {**of_model, **labels})


async def test_a_delta_of_several_tokens_is_divided() -> None:
    measured = Measured()
    measured.delta(1.0, 1)
    measured.delta(2.0, 1)
    measured.delta(3.0, 4)
    measured.delta(0.5, 0, finish_reason="stop")
    measured.task.finish(Finished("r"))
    assert measured.value("inter_token_latency_seconds_count") == 2
    assert measured.value("inter_token_latency_seconds_sum") == pytest.approx(2.0 + 3.0 / 4)


async def test_choices_have_clocks_of_their_own() -> None:
    measured = Measured()
    for index in (0, 1, 0, 1):
        measured.delta(1.0, 1, index)
    measured.task.finish(Finished("r"))
    assert measured.value("inter_token_latency_seconds_sum") == pytest.approx(2 * 2.0)


async def test_tokens_are_counted_as_they_come_and_made_even_at_the_end() -> None:
    measured = Measured()
    measured.task.add_accepted(Accepted("r", 7))
    measured.delta(0, 2)
    assert measured.value("generation_tokens_total") == 2
    for _ in range(4):
        measured.delta(0.3, 1)
    assert measured.value("generation_tokens_total") == 6, "after a second"
    measured.delta(0, 0, finish_reason="stop")
    measured.task.finish(Finished("r", Usage(7, 9)))
    assert measured.value("generation_tokens_total") == 9
    assert measured.value("prompt_tokens_total") == 7


async def test_times_are_the_gateways_outside_and_the_servers_inside() -> None:
    measured = Measured()
    for index in (0, 1):
        measured.delta(5.0, 5, index, "length")
    measured.task.finish(Finished("r", Usage(7, 10), Timings(queued_s=1.0, first_token_s=3.0, total_s=7.0)))
    assert measured.value("e2e_request_latency_seconds_sum") == 10.0
    assert measured.value("time_to_first_token_seconds_sum") == 6.0
    assert measured.value("request_queue_time_seconds_sum") == 1.0
    assert measured.value("request_prefill_time_seconds_sum") == 2.0
    assert measured.value("request_decode_time_seconds_sum") == 4.0
    assert measured.value("request_time_per_output_token_seconds_sum") == 1.0, "four tokens a choice in four seconds"
    assert measured.value("request_success_total", finished_reason="length") == 1


async def test_without_a_token_there_is_no_first_one() -> None:
    measured = Measured()
    measured.task.finish(Finished("r", Usage(7, 0), Timings(1.0, 0.0, 2.0)))
    assert measured.value("e2e_request_latency_seconds_count") == 1
    assert measured.value("time_to_first_token_seconds_count") == 0


def test_many_observations_at_once_are_as_one_by_one() -> None:
    at_once, one_by_one = CollectorRegistry(), CollectorRegistry()
    bounds, values = (0.1, 0.5, 2.5), (0.05, 0.1, 0.11, 2.5, 9.0)
    tally = TokenTally(
        SummedHistogram("h", "says", buckets=bounds, registry=at_once), Counter("c", "says", registry=at_once), bounds
    )
    faster = SummedHistogram("f", "says", buckets=bounds, registry=at_once)
    expected = [Histogram(name, "says", buckets=bounds, registry=one_by_one) for name in "hf"]
    Counter("c", "says", registry=one_by_one).inc(5)
    for value in values:
        for histogram in (faster, *expected):
            histogram.observe(value)
        tally.add_interval(value)
        tally.num_tokens += 1
    tally.settle(0.0)
    tally.settle(0.0)
    assert samples_of(at_once) == samples_of(one_by_one)


def samples_of(registry: CollectorRegistry) -> dict[tuple[str, str | None], float]:
    samples = [sample for family in registry.collect() for sample in family.samples]
    kept = [sample for sample in samples if not sample.name.endswith("_created")]
    return {(sample.name, sample.labels.get("le")): pytest.approx(sample.value) for sample in kept}


async def test_what_a_failed_request_came_to_counts_for_its_key() -> None:
    measured = Measured(tenant=Tenant("ann", b"secret"))
    measured.task.add_accepted(Accepted("r", 7))
    measured.delta(1.0, 3)
    measured.task.finish(Failed.of("r", RequestCancelledError()))
    assert measured.value("request_failures_total", kind="RequestCancelledError") == 1
    assert measured.value("e2e_request_latency_seconds_count") == 0
    get = measured.registry.get_sample_value
    assert get("vfastml:key_requests_total", {"key": "ann"}) == 1
    assert get("vfastml:key_prompt_tokens_total", {"key": "ann"}) == 7
    assert get("vfastml:key_generation_tokens_total", {"key": "ann"}) == 3


async def test_a_request_that_others_refused_is_a_failure_without_a_server() -> None:
    registry = CollectorRegistry()
    task = DispatchTask(TextGenerationReq(request_id="r"), lambda _: None, [RequestMetrics(registry, nothing_held())])
    task.fail(QuotaLimitError())
    labels = {"model_name": "", "engine": "", "kind": "QuotaLimitError"}
    assert registry.get_sample_value("vfastml:request_failures_total", labels) == 1


async def test_other_work_is_counted_and_questions_are_not() -> None:
    work = Measured(OneShotReq(request_id="r"))
    work.now_s += 2.0
    work.task.finish(Output("r", 1))
    assert work.value("request_success_total", finished_reason="output") == 1
    assert work.value("e2e_request_latency_seconds_sum") == 2.0
    assert work.value("time_to_first_token_seconds_count") is None
    question = Measured(TokenizeReq(request_id="r", prompt="p"))
    question.task.finish(Tokenized("r", [1], 512))
    assert question.value("request_success_total", finished_reason="output") is None
