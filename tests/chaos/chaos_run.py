"""A run from the first start of a process to the verdict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.chaos.conversation import End, ask_streamed, ask_whole
from tests.chaos.crowd import Crowd
from tests.chaos.disturbances import TRACKS, Disturbance, Scene
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.chaos.processes import Footprint
from tests.chaos.questions import Answer, AnswerBook, Question, questions
from tests.chaos.verdict import Line, verdict

NUM_QUESTIONS = 40
_PATIENCE_S = 60.0
_DISTURBANCE_S = 150.0
"""Longer than any of them takes by itself: a drain and a start."""
_TICK_S = 0.25

Progress = Callable[[float, Ledger], None]
"""Told a few times a second: seconds of chaos that have passed, and what has been seen."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    seed: int
    seconds: float
    ledger: Ledger
    lines: list[Line]

    @property
    def is_good(self) -> bool:
        """Nothing was lost, mixed up or leaked."""
        return all(line.is_good for line in self.lines)


class ChaosRun:
    """`seconds` of chaos for a tiny model in that folder; logs go into `folder`. The seed chooses what is asked and
    what is done; when exactly things meet is chance."""

    def __init__(self, model: Path, folder: Path, *, seconds: float, seed: int, progress: Progress) -> None:
        self._fleet = Fleet(model, folder)
        self._seconds = seconds
        self._seed = seed
        self._progress = progress
        self._is_over = asyncio.Event()

    async def run(self) -> Outcome:
        """All of it. Raises TimeoutError if the service does not even start."""
        fleet = self._fleet
        try:
            await fleet.start()
            asked, book = await with_answers(fleet.url, questions(random.Random(self._seed), NUM_QUESTIONS))
            ledger = Ledger(book)
            before = {process.name: process.footprint() for process in fleet.processes}
            async with Crowd(fleet, asked, ledger, str(self._seed)) as crowd:
                await self._disturb(crowd, ledger)
                lines = await verdict(fleet, crowd, ledger, _present(before))
        finally:
            await fleet.stop()
        return Outcome(self._seed, self._seconds, ledger, lines)

    async def _disturb(self, crowd: Crowd, ledger: Ledger) -> None:
        async with asyncio.TaskGroup() as going_on:
            going_on.create_task(crowd.ask_until(self._is_over))
            for name, choices in TRACKS.items():
                scene = Scene(self._fleet, crowd, random.Random(f"{self._seed}-{name}"))
                going_on.create_task(self._follow(scene, choices, ledger))
            going_on.create_task(self._watch(ledger))

    async def _follow(self, scene: Scene, choices: tuple[tuple[Disturbance, int], ...], ledger: Ledger) -> None:
        disturbances, weights = zip(*choices, strict=True)
        while not self._is_over.is_set():
            [disturbance] = scene.chance.choices(disturbances, weights)
            ledger.disturb(disturbance.__name__)
            try:
                async with asyncio.timeout(_DISTURBANCE_S):
                    await disturbance(scene)
            except TimeoutError as error:
                ledger.violate(f"{disturbance.__name__} did not come to its end: {error or 'too slow'}")
            await asyncio.sleep(scene.chance.uniform(0.1, 1.0))

    async def _watch(self, ledger: Ledger) -> None:
        while ledger.seconds() < self._seconds:
            self._look(ledger)
            await asyncio.sleep(_TICK_S)
        self._look(ledger)
        self._is_over.set()

    def _look(self, ledger: Ledger) -> None:
        for process in self._fleet.processes:
            if (what := process.broke()) is not None:
                ledger.violate(what)
                process.start()
        self._progress(min(ledger.seconds(), self._seconds), ledger)


async def with_answers(url: str, asked: list[Question]) -> tuple[list[Question], AnswerBook]:
    """The questions, but for those whose answer another one has too, and what a service that is left alone answers.
    Raises ValueError if a stream has another text than the whole answer."""
    answers: dict[str, Answer] = {}
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        for question in asked:
            whole = await ask_whole(client, question, _PATIENCE_S)
            streamed = await ask_streamed(client, question, _PATIENCE_S)
            if whole.end is not End.ANSWERED or dict(streamed.answer) != dict(whole.answer):
                raise ValueError(f"answers differ before anything has happened: {whole}, {streamed}")
            if dict(whole.answer) not in answers.values():
                answers[question.nonce] = dict(whole.answer)
    return [question for question in asked if question.nonce in answers], AnswerBook(answers)


def _present(footprints: dict[str, Footprint | None]) -> dict[str, Footprint]:
    return {name: footprint for name, footprint in footprints.items() if footprint is not None}
