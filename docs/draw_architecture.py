"""Draws architecture.png: `python docs/draw_architecture.py [FOLDER]`. The numbers are those of the README's "The life
of a request". Coordinates are pixels at 1200 px width, from the top left corner."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

WIDTH, HEIGHT, SCALE = 1200, 892, 1.5
INK, SOFT, LINE, PAPER, WHITE = "#1f2933", "#5f6c7b", "#b8c2cc", "#f4f6f8", "#ffffff"
REQUEST, ANSWER = "#2563a8", "#c2570c"
HELD, SHARED, CACHED = "#8fb3d9", "#2563a8", "#dbe7f3"
"""KV blocks; a free one is white."""
MARGIN, LINE_HEIGHT = 10, 17

Point = tuple[float, float]


class Drawing:
    """A page to draw on."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100 * SCALE, facecolor=WHITE)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, text: str, color: str = INK, **options: Any) -> None:
        """`y` is the foot of the first line."""
        for line, words in enumerate(text.split("\n")):
            self.axes.text(x, y + LINE_HEIGHT * line, words, color=color, **{"fontsize": 9, **options})

    def panel(
        self, x: float, y: float, w: float, h: float, title: str, note: str = "", note_x: float = 0, copies: int = 1
    ) -> None:
        """A process or a part of one; `copies` lie behind each other."""
        for back in reversed(range(copies)):
            self._rounded(x + 7 * back, y - 7 * back, w, h, PAPER)
        self.text(x + MARGIN, y + 25, title, fontsize=10.5, weight="bold")
        self.text(note_x, y + 25, note, SOFT)

    def box(self, x: float, y: float, w: float, h: float, title: str, body: str, number: int | None = None) -> None:
        """A file or a few, and what happens there."""
        self._rounded(x, y, w, h, WHITE)
        if number is not None:
            self.number(x + 18, y + 18, number)
        self.text(x + (MARGIN if number is None else 34), y + 23, title, weight="bold")
        self.text(x + MARGIN, y + 45, body, SOFT)

    def number(self, x: float, y: float, number: int) -> None:
        """A step of the life of a request; the last one is the answer's."""
        self.axes.add_patch(Circle((x, y), 10, color=ANSWER if number == 8 else REQUEST, zorder=4))
        self.text(x, y + 0.5, str(number), WHITE, weight="bold", va="center", ha="center", zorder=5)

    def arrow(self, color: str, *points: Point, both: bool = False) -> None:
        """Along straight lines through all points."""
        self.axes.plot(*zip(*points[:-1], strict=True), color=color, lw=1.8, solid_capstyle="round", zorder=3)
        style = {"arrowstyle": "<|-|>" if both else "-|>", "color": color, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", points[-1], points[-2], arrowprops={**style, "mutation_scale": 12}, zorder=3)

    def blocks(self, x: float, y: float, rows: list[str]) -> None:
        """KV blocks, a letter each."""
        colors = {"h": HELD, "s": SHARED, "c": CACHED, ".": WHITE}
        for line, row in enumerate(rows):
            for column, kind in enumerate(row):
                corner = (x + 22 * column, y + 22 * line)
                self.axes.add_patch(Rectangle(corner, 18, 18, facecolor=colors[kind], edgecolor=LINE, zorder=2))

    def _rounded(self, x: float, y: float, w: float, h: float, color: str) -> None:
        style = "round,pad=0,rounding_size=6"
        self.axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, facecolor=color, edgecolor=LINE, lw=1.2))


def draw_gateway(draw: Drawing) -> None:
    """Steps 1 to 3, and the way out."""
    draw.panel(30, 58, 900, 40, "Clients", "OpenAI's libraries, curl: whatever speaks OpenAI's HTTP API", 118)
    draw.panel(30, 150, 900, 170, "N gateways", "each takes any request", 168, copies=3)
    draw.box(48, 188, 182, 80, "streaming.py", "server-sent events, or\none body (replies.py)", 8)
    draw.box(264, 188, 170, 80, "api_server.py", "route, key,\nsize of the body", 1)
    draw.box(468, 188, 170, 80, "openai/chat.py", "checked; becomes a\nTextGenerationReq", 2)
    draw.box(672, 188, 240, 80, "dispatch_engine.py", "picks a server, makes a place\nfor the answer, then sends", 3)
    draw.arrow(REQUEST, (349, 98), (349, 188))
    draw.arrow(REQUEST, (434, 228), (468, 228))
    draw.arrow(REQUEST, (638, 228), (672, 228))
    draw.arrow(ANSWER, (700, 268), (700, 296), (152, 296), (152, 268))
    draw.arrow(ANSWER, (152, 188), (152, 98))


def draw_wire(draw: Drawing) -> None:
    """Step 4, and the answer on its way back."""
    note = "each gateway has a DEALER for each model server; each model server has one ROUTER\n"
    draw.panel(30, 360, 900, 58, "ZeroMQ", note + "one message is one msgpack frame with one typed value", 118)
    draw.arrow(REQUEST, (800, 268), (800, 546))
    draw.arrow(ANSWER, (896, 722), (896, 268))
    draw.number(800, 389, 4)
    draw.number(896, 389, 8)


def draw_model_server(draw: Drawing) -> None:
    """Steps 5 and 6, and where the answer leaves."""
    draw.panel(30, 472, 900, 370, "M model servers", "one model and two threads in each", 194, copies=3)
    draw.panel(48, 510, 622, 316, "Main thread", "runs the model", 172)
    draw.panel(692, 510, 220, 316, "I/O thread")
    prepares = "decodes and prepares:\nchat template, tokens,\nlimits; what cannot be\ndone is refused here"
    draw.box(706, 546, 172, 124, "server_link.py", prepares, 5)
    merges = "one StepReply a step for\neach gateway; merged\nwhile that does not read"
    draw.box(706, 722, 198, 92, "unsent_replies.py", merges)
    queues = "takes requests from one\nqueue, puts replies into\nthe other"
    draw.box(462, 546, 194, 268, "model_server_text_hf", queues, 6)
    draw.arrow(REQUEST, (706, 644), (656, 644))
    draw.arrow(REQUEST, (462, 644), (438, 644))
    draw.arrow(ANSWER, (438, 784), (462, 784))
    draw.arrow(ANSWER, (656, 784), (706, 784))
    draw.number(482, 784, 8)
    draw.text(500, 789, "deltas and endings", SOFT)


def draw_engine(draw: Drawing) -> None:
    """Step 7: what all running requests go through in every step, and the memory under it."""
    draw.panel(212, 546, 226, 268, "")
    draw.number(230, 564, 7)
    draw.text(246, 569, "text_engine.py: step", weight="bold")
    draw.box(224, 582, 202, 60, "schedule", "scheduler, block_manager")
    draw.box(224, 660, 202, 76, "run", "batch_inputs, model_runner:\ndecoder, attention, sampler")
    draw.box(224, 754, 202, 52, "update", "detokenizer, stop strings")
    draw.arrow(SOFT, (325, 642), (325, 660))
    draw.arrow(SOFT, (325, 736), (325, 754))
    draw.arrow(SOFT, (182, 612), (224, 612), both=True)
    draw.arrow(SOFT, (182, 698), (224, 698), both=True)
    draw.panel(62, 546, 120, 268, "KV blocks")
    draw.blocks(70, 584, ["sshh.", "sshhh", "sshcc", "hhhh.", "hhcc.", "....."])
    for line, (kind, name) in enumerate(zip("shc.", ("shared", "in use", "cached", "free"), strict=True)):
        draw.blocks(70, 724 + 22 * line, [kind])
        draw.text(98, 738 + 22 * line, name, SOFT)


def draw_walls(draw: Drawing) -> None:
    """What each part may import."""
    draw.text(964, 83, "May import", fontsize=10.5, weight="bold")
    for y, part, what in (
        (150, "entrypoints/", "fastapi, uvicorn, pydantic\nand the wire; never torch\nor transformers"),
        (360, "engine/ (the wire)", "zmq, msgspec; never torch,\ntransformers or fastapi"),
        (510, "models_servers/", "the wire, the text engine, the\nmodel store; never fastapi"),
        (614, "text_engine/", "torch, transformers and the\nmessages of the wire; never\nzmq or fastapi"),
    ):
        height = 26 + LINE_HEIGHT * len(what.split("\n"))
        draw.axes.plot((964, 964), (y, y + height), color=LINE, lw=3, solid_capstyle="butt")
        draw.text(976, y + 15, part, weight="bold")
        draw.text(976, y + 37, what, SOFT)


def draw_legend(draw: Drawing) -> None:
    """The colours of arrows, and what no arrow shows."""
    draw.text(30, 34, "VFastML: the way of a request and of its answer", fontsize=14, weight="bold")
    draw.arrow(REQUEST, (30, 868), (62, 868))
    draw.text(72, 873, "request", SOFT)
    draw.arrow(ANSWER, (140, 868), (172, 868))
    draw.text(182, 873, "answer", SOFT)
    draw.text(264, 873, "A client that goes away cancels its request the same way down, as far as its KV blocks.", SOFT)


def main(folder: Path) -> None:
    """Write the picture there."""
    mpl.rcParams["font.family"] = "DejaVu Sans"
    draw = Drawing()
    for part in (draw_gateway, draw_wire, draw_model_server, draw_engine, draw_walls, draw_legend):
        part(draw)
    draw.figure.savefig(folder / "architecture.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
