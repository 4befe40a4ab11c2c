"""The live picture: at a screen that is only in memory, and at a real terminal."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rich.color import Color
from textual.pilot import Pilot
from textual.widgets import Sparkline

from prebuilt_apps.cli.top.admin_client import AdminClient
from prebuilt_apps.cli.top.app import TopApp
from prebuilt_apps.cli.top.panels import ServerTable
from tests.models_servers.started_process import PATIENCE_S
from tests.prebuilt_apps.terminal_process import CTRL_C, TerminalProcess
from tests.prebuilt_apps.top.recorded_service import RecordedService, loading_server

_INTERVAL_S = 0.2
_PAUSE_S = 0.05


class Screen:
    """An app of which a test sees what its terminal would show."""

    def __init__(self, app: TopApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def lines(self) -> list[str]:
        """From top to bottom."""
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip) for strip in strips]

    def line(self, beginning: str) -> str:
        """The one line that begins like that, from there on."""
        [found] = [line for line in self.lines if line.lstrip().startswith(beginning)]
        return found.strip()

    async def press(self, *keys: str) -> None:
        """And all that comes of it is shown."""
        await self.pilot.press(*keys)

    async def until(self, holds: Callable[[], Any], what: str) -> None:
        """A look or two later."""
        for _ in range(round(PATIENCE_S / _PAUSE_S)):
            if holds():
                return
            await asyncio.sleep(_PAUSE_S)
        raise AssertionError(f"{what} did not come:\n" + "\n".join(self.lines))

    async def until_shown(self, words: str) -> None:
        """These, somewhere."""
        await self.until(lambda: words in "\n".join(self.lines), words)

    async def rates(self) -> None:
        """There are some once the service was looked at twice."""
        await self.until(lambda: "ok -" not in self.line("ANSWERS"), "a rate")
        await self.until_shown("key-8f39a63a")


@asynccontextmanager
async def watching(service: RecordedService, width: int, height: int) -> AsyncIterator[Screen]:
    """The app at a screen of that size."""
    async with AdminClient(service.url) as client:
        app = TopApp(client, await client.snapshot(), _INTERVAL_S)
        async with app.run_test(size=(width, height)) as pilot:
            await pilot.pause()
            yield Screen(app, pilot)


async def test_a_usual_terminal(service: RecordedService) -> None:
    service.servers = [loading_server()]
    async with watching(service, 80, 24) as screen:
        await screen.rates()
        assert len(screen.lines) == 24
        assert re.fullmatch(rf"vfastml 0\.3\.0 at {service.url} \| ready \| up \S+", screen.line("vfastml"))
        assert screen.line("REQUESTS") == "REQUESTS  running 7  waiting 1  held 0"
        assert re.fullmatch(r"ANSWERS   ok \d\S*/s  errors 0/s  refused 0/s", screen.line("ANSWERS"))
        assert re.fullmatch(r"TOKENS    generated \d\S*/s  prompt \d\S*/s  prefix hits 62%", screen.line("TOKENS"))
        assert screen.line("MODEL").split() == ["MODEL", "STATE", "RUN", "WAIT", "KV", "TOK/S", "PREEMPT", "STEP"]
        assert screen.line("smollm2").split()[1:5] == ["ready", "7", "1", "█░░░"]
        assert screen.line("- ").split()[1:6] == ["loading", "weights", "40%", "-", "-"]
        assert re.search(r"^LATENCY, last \S+ +p50 +p90 +p99 +KEY +REQ/S +TOK/S$", screen.line("LATENCY"))
        assert re.search(r"time to first token +26\.67 s 37\.33 s 39\.73 s +key-8f39a63a +\d", "\n".join(screen.lines))
        assert screen.line("tokens/s").count("most in") == 2
        assert re.search(r"q Quit +p Pause +s Sort", screen.lines[-1])


async def test_a_large_terminal(service: RecordedService) -> None:
    async with watching(service, 160, 50) as screen:
        await screen.rates()
        assert len(screen.lines) == 50
        assert screen.line("MODEL").split()[-1] == "SERVER"
        row = screen.line("smollm2-135m-instruct").split()
        assert (row[4], row[-1]) == ("█" + 19 * "░", "tcp://127.0.0.1:18490")


@pytest.mark.parametrize(("width", "height"), [(40, 12), (10, 4), (1, 1)])
async def test_a_small_terminal_is_no_failure(service: RecordedService, width: int, height: int) -> None:
    async with watching(service, width, height) as screen:
        await screen.until(lambda: screen.app.query_one("#generated").query_one(Sparkline).data, "a look")
        await screen.press("s", "p", "p", "down")
        assert len(screen.lines) == height


async def test_it_is_resized(service: RecordedService) -> None:
    async with watching(service, 80, 24) as screen:
        await screen.pilot.resize_terminal(160, 40)
        await screen.until_shown("tcp://127.0.0.1:18490")
        await screen.pilot.resize_terminal(60, 20)
        await screen.until(lambda: len(screen.line("MODEL")) <= 60 and len(screen.lines) == 20, "a smaller picture")


async def test_pause(service: RecordedService) -> None:
    async with watching(service, 80, 24) as screen:
        await screen.rates()
        await screen.press("p")
        await screen.until(lambda: "paused: p goes on" in screen.lines[1], "a notice")
        service.servers = [loading_server()]
        looks = len(service.asked)
        await screen.until(lambda: len(service.asked) > looks + 3, "looks")
        assert "loading weights" not in "\n".join(screen.lines)
        await screen.press("p")
        await screen.until(lambda: "paused" not in "\n".join(screen.lines), "the end of the pause")
        await screen.until_shown("loading weights 40%")


async def test_sort_keeps_the_chosen_row(service: RecordedService) -> None:
    service.servers = [loading_server(), {**loading_server("tcp://a:1"), "models": [{"id": "a-model"}]}]
    async with watching(service, 160, 40) as screen:
        table = screen.app.query_one(ServerTable)

        def endpoints() -> list[str]:
            return [line.split()[-1] for line in screen.lines if line.strip() and line.split()[-1].startswith("tcp:")]

        configured = ["tcp://127.0.0.1:18490", "tcp://127.0.0.1:6501", "tcp://a:1"]
        assert endpoints() == configured
        await screen.press("down", "down")
        assert table.cursor_row == 2
        await screen.press("s")
        by_model = ["tcp://127.0.0.1:6501", "tcp://a:1", "tcp://127.0.0.1:18490"]
        await screen.until(lambda: "sorted by model" in screen.lines[1] and endpoints() == by_model, "that order")
        assert table.cursor_row == 1
        await screen.press("s", "s", "s", "s")
        await screen.until(
            lambda: "sorted" not in "\n".join(screen.lines) and endpoints() == configured, "the first one"
        )
        assert table.cursor_row == 2


async def test_a_service_that_goes_away_and_comes_back(service: RecordedService) -> None:
    async with watching(service, 80, 24) as screen:
        await screen.rates()
        service.is_away = True
        await screen.until_shown("lost, trying again: ")
        await screen.until(lambda: "HTTP status 502" in screen.lines[1], "a notice")
        assert screen.line("vfastml").endswith("| no answer")
        service.is_away = False
        await screen.until(lambda: "| ready |" in screen.line("vfastml"), "the service")
        await screen.until(lambda: "lost" not in "\n".join(screen.lines), "the end of the notice")


async def test_names_are_no_markup_and_cannot_drive_the_terminal(service: RecordedService) -> None:
    service.servers = [{**loading_server(), "models": [{"id": "[red]x[/]\x1b[2J"}]}]
    async with watching(service, 160, 24) as screen:
        assert "[red]x[/]\\x1b[2J" in "\n".join(screen.lines)


async def test_no_color(service: RecordedService, monkeypatch: pytest.MonkeyPatch) -> None:
    def colours(screen: Screen) -> set[str]:
        strips = screen.app.screen._compositor.render_strips()
        styles = [segment.style for strip in strips for segment in strip if segment.style]
        used = [colour for style in styles for colour in (style.color, style.bgcolor) if colour is not None]
        return {colour.name for colour in used if colour != Color.default()}

    async with watching(service, 80, 24) as screen:
        assert colours(screen)
    monkeypatch.setenv("NO_COLOR", "1")
    async with watching(service, 80, 24) as screen:
        assert colours(screen) == set()
        assert "ready" in screen.line("smollm2")


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_quit(service: RecordedService, key: str) -> None:
    async with watching(service, 80, 24) as screen:
        await screen.press(key)
        assert not screen.app.is_running
        assert screen.app.return_code == 0


def at_a_terminal(service: RecordedService) -> TerminalProcess:
    command = [sys.executable, "-m", "prebuilt_apps.cli", "top", "--url", service.url]
    return TerminalProcess("env", "TERM=xterm-256color", *command)


def test_ctrl_c_gives_the_terminal_back(service: RecordedService) -> None:
    with at_a_terminal(service) as terminal:
        terminal.wait_for("REQUESTS")
        since = terminal.type(CTRL_C)
        assert terminal.status() == 0
        assert "\x1b[?1049l" in terminal.output[since:]
        assert "Traceback" not in terminal.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_give_the_terminal_back(service: RecordedService, number: signal.Signals) -> None:
    with at_a_terminal(service) as terminal:
        terminal.wait_for("REQUESTS")
        os.kill(terminal.process.pid, number)
        assert terminal.status() == 0
        assert "\x1b[?1049l" in terminal.output


def test_a_terminal_that_cannot_draw_gets_one_picture(service: RecordedService) -> None:
    command = [sys.executable, "-m", "prebuilt_apps.cli", "top", "--url", service.url, "--interval", "0.05"]
    with TerminalProcess(*command) as terminal:
        assert terminal.status() == 0
        assert "REQUESTS" in terminal.output
        assert "\x1b[?1049h" not in terminal.output


def test_what_is_wrong_from_the_beginning_is_a_line(service: RecordedService) -> None:
    service.is_away = True
    with at_a_terminal(service) as terminal:
        assert terminal.status() == 1
        assert re.fullmatch(r"vfastml top: \S+ answers with HTTP status 502[^\n]+\r\n", terminal.output)
