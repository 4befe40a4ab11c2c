"""A model server for something that is not text: RGB values in, colour names out, a batch at a time.

Run `python examples/colour_names.py`, and in another shell `python examples/colour_names.py 255,120,10 5,5,200`.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import torch

from vfastml import OneShotModelServer, OneShotReq
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.errors import InvalidRequestError
from vfastml.utils.api import gen_request_id

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


async def ask(colours: list[list[float]], port: int) -> None:
    """Sends all colours at once: the server makes one batch of them."""
    engine = DispatchEngine([f"tcp://127.0.0.1:{port}"])
    await engine.start()
    tasks = [engine.dispatch(OneShotReq(request_id=gen_request_id("colour"), inputs=rgb)) for rgb in colours]
    for rgb, task in zip(colours, tasks, strict=True):
        answer = await task.get_result()
        print(rgb, answer.result if answer.succeeded() else answer.error)
    await engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server of colour names or, given colours, its client.")
    parser.add_argument("colours", nargs="*", metavar="R,G,B", type=lambda text: [float(n) for n in text.split(",")])
    parser.add_argument("--port", type=int, default=6501)
    args = parser.parse_args()
    if args.colours:
        asyncio.run(ask(args.colours, args.port))
    else:
        ColourNames("colour_names", "colour-names", model_device="cpu", rpc_port=args.port).run_forever()
