"""A model server for something that is not text, RGB values in and colour names out, and a client without HTTP.

Run `python examples/colour_names.py`, and in another shell `python examples/colour_names.py 255,120,10 5,5,200`.
The shortest such server, with HTTP in front of it, is custom_server.py with custom_gateway.py.
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
    """Names the nearest colour. What waits comes as one batch; an error of ours refuses the input that caused it."""

    def load(self) -> None:
        self.names = list(COLOURS)
        self.points = torch.tensor(list(COLOURS.values()), dtype=torch.float32, device=self.device)

    def forward(self, inputs: list[Any]) -> list[Any]:
        if any(len(rgb) != 3 for rgb in inputs):
            raise InvalidRequestError("A colour is three numbers.")
        points = torch.tensor(inputs, dtype=torch.float32, device=self.device)
        return [self.names[nearest] for nearest in torch.cdist(points, self.points).argmin(dim=1).tolist()]


async def ask(colours: list[list[float]], port: int) -> None:
    """Sends all colours at once, so that the server can make one batch of them."""
    engine = DispatchEngine([f"tcp://127.0.0.1:{port}"])
    await engine.start()
    tasks = [engine.dispatch(OneShotReq(request_id=gen_request_id("colour"), inputs=rgb)) for rgb in colours]
    for rgb, task in zip(colours, tasks, strict=True):
        answer = await task.get_result()
        print(rgb, answer.result if answer.succeeded() else answer.error)
    await engine.close()


def as_numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server of colour names or, given colours, its client.")
    parser.add_argument("colours", nargs="*", metavar="R,G,B", type=as_numbers, help="to name; none: be the server")
    parser.add_argument("--port", type=int, default=6501, help="where the server listens (default: 6501)")
    args = parser.parse_args()
    if args.colours:
        asyncio.run(ask(args.colours, args.port))
    else:
        server = ColourNames("colour_names", "colour-names", rpc_port=args.port)
        server.run_forever()
