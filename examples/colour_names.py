"""A model server for something that is not text: RGB values in, colour names out, a batch at a time.

Run `python examples/colour_names.py`, and in another shell `python examples/colour_names.py 255,120,10 5,5,200`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import torch

from vfastml import OneShotModelServer, OneShotReq
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.errors import InvalidRequestError

PORT = 6501
COLOURS = {
    "red": (230, 30, 30),
    "orange": (255, 140, 0),
    "green": (30, 160, 60),
    "blue": (30, 60, 220),
    "grey": (128,) * 3,
}


class ColourNames(OneShotModelServer):
    """Names the nearest colour."""

    def load(self) -> None:
        self.names = list(COLOURS)
        self.points = torch.tensor(list(COLOURS.values()), dtype=torch.float32, device=self.model_device)

    def forward(self, inputs: list[Any]) -> list[Any]:
        if any(len(rgb) != 3 for rgb in inputs):
            raise InvalidRequestError("A colour is three numbers.")
        points = torch.tensor(inputs, dtype=torch.float32, device=self.model_device)
        return [self.names[nearest] for nearest in torch.cdist(points, self.points).argmin(dim=1).tolist()]


async def ask(colours: list[list[float]]) -> None:
    """Sends all colours at once: the server makes one batch of them."""
    engine = DispatchEngine([f"tcp://127.0.0.1:{PORT}"])
    await engine.start()
    tasks = [engine.dispatch(OneShotReq(request_id=f"colour-{n}", inputs=rgb)) for n, rgb in enumerate(colours)]
    for rgb, task in zip(colours, tasks, strict=True):
        answer = await task.get_result()
        print(rgb, answer.result if answer.succeeded() else answer.error)
    await engine.close()


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(ask([[float(number) for number in text.split(",")] for text in sys.argv[1:]]))
    else:
        ColourNames("colour_names", "colour-names", model_device="cpu", rpc_port=PORT).run_forever()
