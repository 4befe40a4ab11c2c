"""What is measured of the text requests of one model on one model server."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

from vfastml.entrypoints.metrics.labels import MODEL_AND_ENGINE
from vfastml.entrypoints.metrics.token_tally import SummedHistogram, TokenTally

# The buckets of vLLM, so that dashboards and alerts made for it fit.
_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
_REQUEST_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),  # beyond vLLM's, which would show every short wait as 150 ms
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


@dataclass(frozen=True, slots=True)
class TextSeries:
    """Found once for a request, so that a delta costs no look-up by labels."""

    tokens: TokenTally
    """inter_token_latency and generation_tokens."""
    time_to_first_token: Histogram
    time_per_output_token: Histogram
    e2e_latency: Histogram
    queue_time: Histogram
    prefill_time: Histogram
    decode_time: Histogram
    prompt_tokens: Counter


class TextFamilies:
    """The series of all models. `registry` None: they are collected otherwise, from the files of all processes."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        def histogram(name: str, says: str, buckets: tuple[float, ...]) -> SummedHistogram:
            name = f"vfastml:{name}_seconds"
            return SummedHistogram(name, says, MODEL_AND_ENGINE, buckets=buckets, registry=registry)

        def counter(name: str, says: str) -> Counter:
            return Counter(f"vfastml:{name}", says, MODEL_AND_ENGINE, registry=registry)

        self._series: dict[tuple[str, str], TextSeries] = {}
        self._intervals = histogram(
            "inter_token_latency",
            "Between two deltas of a text as they reach the gateway, by the tokens of the later one.",
            _TOKEN_S,
        )
        self._tokens = counter("generation_tokens", "Generated tokens, counted as they come.")
        self._families: dict[str, Histogram | Counter] = {
            "time_to_first_token": histogram(
                "time_to_first_token",
                "From a request's dispatch to its first token, waiting included; of finished requests.",
                _FIRST_TOKEN_S,
            ),
            "time_per_output_token": histogram(
                "request_time_per_output_token",
                "Mean time of a request's tokens after the first, of each choice.",
                _TOKEN_S,
            ),
            "e2e_latency": histogram(
                "e2e_request_latency",
                "From a request's dispatch to its end, as the gateway sees it; of finished requests.",
                _REQUEST_S,
            ),
            "queue_time": histogram(
                "request_queue_time", "From a request's arrival in the model server to its first step.", _REQUEST_S
            ),
            "prefill_time": histogram(
                "request_prefill_time", "From a request's first step to its first token.", _REQUEST_S
            ),
            "decode_time": histogram("request_decode_time", "From a request's first token to its end.", _REQUEST_S),
            "prompt_tokens": counter("prompt_tokens", "Prompt tokens of accepted requests, counted as they end."),
        }

    def of(self, model: str, engine: str) -> TextSeries:
        """The series with these labels."""
        found = self._series.get((model, engine))
        if found is None:
            children = {name: family.labels(model, engine) for name, family in self._families.items()}
            tally = TokenTally(self._intervals.labels(model, engine), self._tokens.labels(model, engine), _TOKEN_S)
            found = self._series[model, engine] = TextSeries(tally, **children)  # type: ignore[arg-type]
        return found

    def observe_other(self, model: str, engine: str, e2e_s: float) -> None:
        """A request that asked for no text has been answered: nothing else of it is measured."""
        self._families["e2e_latency"].labels(model, engine).observe(e2e_s)  # type: ignore[union-attr]
