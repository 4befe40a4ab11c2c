from __future__ import annotations

from benchmarks.comparison import side_by_side
from benchmarks.records import BenchmarkResult
from tests.benchmarks.results import record, result, run


def speed(label: str, *walls: float, **server: object) -> BenchmarkResult:
    """Runs of five tokens that took so many seconds each, four fifths of it after the first token."""
    runs = [
        run([record(e2e_s=wall, chunks_s=[wall / 5 * number for number in (1, 2, 3, 4, 5)])], repeat=repeat)
        for repeat, wall in enumerate(walls, start=1)
    ]
    made = result(label, runs)
    made.server.update(server)
    return made


def rows(results: list[BenchmarkResult]) -> dict[str, list[str]]:
    table = side_by_side(results)
    return {row[0]: row[1:] for row in [table.header, *table.rows]}


def test_medians_spread_and_ratios() -> None:
    found = rows([speed("own", 0.5, 0.4, 1.0), speed("slow", 1.0, 1.0, 2.0), speed("fast", 0.25, 0.2, 0.25)])
    assert found[""] == ["own", "slow", "fast", "first / best other"]
    assert found["c=1  output tokens/s"] == [
        "10.0 (5.0 to 12.5)",
        "5.0 (2.5 to 5.0) 2.00x",
        "20.0 (20.0 to 25.0) 0.50x",
        "0.50x",
    ]
    assert found["c=1  TTFT p50, ms"] == [
        "100 (80 to 200)",
        "200 (200 to 400) 0.50x",
        "50 (40 to 50) 2.00x",
        "2.00x",
    ]
    assert found["c=1  failed"] == ["0 of 3", "0 of 3", "0 of 3", "-"]


def test_the_best_other_is_chosen_for_each_figure() -> None:
    early = speed("early", 1.0)
    for each in early.runs[0].records:
        each.chunks_s[0] = 0.05
    early.runs[0].metrics.ttft_p50_s = 0.05
    found = rows([speed("own", 1.0), speed("fast", 0.5), early])
    assert (found["c=1  output tokens/s"][-1], found["c=1  TTFT p50, ms"][-1]) == ("0.50x", "4.00x")


def test_a_variant_is_compared_and_is_no_rival() -> None:
    found = rows([speed("own", 1.0), speed("quick", 0.1, variant_of="own"), speed("a", 0.5), speed("b", 2.0)])
    assert found["c=1  output tokens/s"] == ["5.0", "50.0 0.10x", "10.0 0.50x", "2.5 2.00x", "0.50x"]


def test_one_other_needs_no_best() -> None:
    assert rows([speed("own", 1.0), speed("other", 0.5)])[""] == ["own", "other"]


def test_of_what_is_no_server_only_tokens_are_compared() -> None:
    offline = speed("offline", 0.5)
    offline.settings["endpoint"] = "offline"
    found = rows([speed("own", 1.0), offline])
    assert found["c=1  output tokens/s"] == ["5.0", "10.0 0.50x"]
    assert found["c=1  TTFT p50, ms"] == ["200", "-"]


def test_start_and_memory_are_not_those_of_what_is_no_server() -> None:
    offline = speed("offline", 0.5, ready_s=[1.0], resident_mb=[100.0])
    offline.settings["endpoint"] = "offline"
    found = rows([speed("own", 1.0, ready_s=[3.0], resident_mb=[800.0]), offline])
    assert (found["start to ready, s"], found["resident memory, MB"]) == (["3.0", "-"], ["800", "-"])


def test_start_and_memory_where_they_are_known() -> None:
    own = speed("own", 1.0, ready_s=[3.0, 9.0, 4.0], resident_mb=[800.0, 900.0])
    found = rows([own, speed("remote", 1.0, ready_s=[])])
    assert found["start to ready, s"] == ["4.0", "-"]
    assert found["resident memory, MB"] == ["900", "-"]
    assert "resident memory, MB" not in rows([speed("own", 1.0), speed("remote", 1.0)])
