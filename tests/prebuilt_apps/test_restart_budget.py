"""How often, and how soon, a process is started again."""

from __future__ import annotations

from prebuilt_apps.openai.restart_budget import MOST_DEATHS, WINDOW_S, RestartBudget


def pauses(*deaths_s: float) -> list[float | None]:
    budget = RestartBudget(first_pause_s=0.5)
    return [budget.pause_after_death(now_s) for now_s in deaths_s]


def test_pauses_double_until_there_were_too_many_deaths() -> None:
    assert pauses(100, 101, 102, 103, 104) == [0.5, 1, 2, 4, None]


def test_the_last_death_counts_with_those_of_a_minute() -> None:
    assert pauses(0, 20, 40, 59, 60)[-1] is None
    assert pauses(0, 20, 40, 59, 60.5)[-1] == 4


def test_deaths_of_long_ago_are_forgotten() -> None:
    assert pauses(0, 1, 2, 1000, 1001) == [0.5, 1, 2, 0.5, 1]
    assert None not in pauses(*(number * (WINDOW_S / (MOST_DEATHS - 1) + 0.1) for number in range(50)))
