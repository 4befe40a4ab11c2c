"""The live picture."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer

from prebuilt_apps.cli.service_error import ServiceError
from prebuilt_apps.cli.top import texts
from prebuilt_apps.cli.top.admin_client import AdminClient
from prebuilt_apps.cli.top.panels import KeyTable, Latencies, Line, ServerTable, Trend
from prebuilt_apps.cli.top.rates import Snapshot, Window
from prebuilt_apps.cli.top.view import view_of

_WINDOW_S = 60.0
_LATENCIES_WIDTH = 48
_TOTALS = ("requests", "answers", "tokens")


class TopApp(App[None]):
    """A service, looked at again and again until somebody quits."""

    TITLE = "vfastml top"
    ENABLE_COMMAND_PALETTE = False
    CSS = f"""
    Line {{ height: 1; padding: 0 1; }}
    #heading {{ text-style: bold; }}
    #notice {{ text-style: reverse; display: none; }}
    #servers {{ height: 1fr; min-height: 3; margin: 1 0; }}
    #figures {{ height: 5; }}
    #latencies {{ width: {_LATENCIES_WIDTH}; padding: 0 1; }}
    #keys {{ width: 1fr; height: 5; }}
    #trends {{ height: 3; margin: 1 0 0 0; }}
    Sparkline {{ height: 2; margin: 0 1; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("p", "pause", "Pause"),
        Binding("s", "sort", "Sort"),
    ]

    def __init__(self, client: AdminClient, first: Snapshot, interval_s: float) -> None:
        # Without colours: the terminal's own, and no greys in their place.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self._client = client
        self._interval_s = interval_s
        self._window = Window(max(_WINDOW_S, 2 * interval_s))
        self._window.add(first)
        self._newest = self._shown = view_of(client.url, self._window)
        self._lost: str | None = None
        self._is_paused = False
        self._order = texts.ORDERS[0]

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        for name in ("heading", "notice", *_TOTALS):
            yield Line(id=name)
        yield ServerTable(id="servers")
        with Horizontal(id="figures"):
            yield Latencies(id="latencies")
            yield KeyTable(id="keys", has_cursor=False)
        with Horizontal(id="trends"):
            yield Trend("tokens/s", self._interval_s, id="generated")
            yield Trend("waiting", self._interval_s, id="waiting")
        yield Footer()

    def on_mount(self) -> None:
        """Begins to look."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self.run_worker(self._look_again_and_again())

    def on_resize(self) -> None:
        """Columns have other widths now. The first picture is drawn here too: before, there is no size."""
        self.call_after_refresh(self._draw)

    def action_pause(self) -> None:
        """The picture stands still; what happens meanwhile is still counted."""
        self._is_paused = not self._is_paused
        self._see()

    def action_sort(self) -> None:
        """The next order of model servers."""
        place = texts.ORDERS.index(self._order) + 1
        self._order = texts.ORDERS[place % len(texts.ORDERS)]
        self._draw()

    async def _look_again_and_again(self) -> None:
        while True:
            began = time.monotonic()
            await self._look()
            await asyncio.sleep(max(0.0, began + self._interval_s - time.monotonic()))

    async def _look(self) -> None:
        try:
            self._window.add(await self._client.snapshot())
            self._lost = None
        except ServiceError as error:
            self._lost = str(error)
        # At the end the widgets go first.
        if self.is_running:
            self._newest = view_of(self._client.url, self._window)
            self._note_trends()
            self._see()

    def _note_trends(self) -> None:
        totals = self._newest.totals
        self.query_one("#generated", Trend).add(None if self._lost else totals.generated_per_s)
        self.query_one("#waiting", Trend).add(None if self._lost else totals.waiting)

    def _see(self) -> None:
        if not self._is_paused:
            self._shown = self._newest
        self._draw()

    def _draw(self) -> None:
        view, width = self._shown, self.size.width
        self.query_one("#heading", Line).say(texts.heading(view, is_lost=self._lost is not None))
        for name, line in zip(_TOTALS, texts.total_lines(view.totals), strict=True):
            self.query_one(f"#{name}", Line).say(line)
        self.query_one(ServerTable).show(texts.in_order(view.servers, self._order), width)
        self.query_one(Latencies).show(view.latencies, view.window_s)
        self.query_one(KeyTable).show(view.keys, width - _LATENCIES_WIDTH)
        self._draw_notice()
        if not self._is_paused:
            for trend in self.query(Trend):
                trend.draw()

    def _draw_notice(self) -> None:
        notices = [f"sorted {self._order.name}"] if self._order.place else []
        notices += ["paused: p goes on"] if self._is_paused else []
        notices += [f"lost, trying again: {texts.one_line(self._lost)}"] if self._lost else []
        line = self.query_one("#notice", Line)
        line.display = bool(notices)
        line.say(" | ".join(notices))
