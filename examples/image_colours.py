"""A model server for images from anybody, decoded within bounds, and a client without HTTP.

Run `python examples/image_colours.py`, and in another shell `python examples/image_colours.py --images photo.png`.
It needs the extra `media`.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from vfastml import ImageToImageReq, OneShotModelServer
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.media import ImageBounds, decoded_image
from vfastml.utils.api import gen_request_id

BOUNDS = ImageBounds(max_bytes=4 << 20, max_pixels=4_000_000)


class ImageColours(OneShotModelServer):
    """Tells the mean colour of each image. An image beyond the bounds is refused, alone, before it is decoded."""

    def load(self) -> None:
        """Nothing to load: the mean needs no weights."""

    def forward(self, inputs: list[Any]) -> list[Any]:
        return [[mean_colour(image) for image in one["images"]] for one in inputs]


def mean_colour(data: bytes) -> list[int]:
    return list(decoded_image(data, BOUNDS).convert("RGB").resize((1, 1)).getpixel((0, 0)))


async def ask(images: list[bytes], port: int) -> None:
    engine = DispatchEngine([f"tcp://127.0.0.1:{port}"])
    await engine.start()
    task = engine.dispatch(ImageToImageReq(request_id=gen_request_id("image"), images=images))
    answer = await task.get_result()
    print(answer.result if answer.succeeded() else answer.error)
    await engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server of images' mean colours or, given images, its client.")
    parser.add_argument("--images", nargs="+", metavar="FILE", type=Path, help="to look at; none: be the server")
    parser.add_argument("--port", type=int, default=6501, help="where the server listens (default: 6501)")
    args = parser.parse_args()
    if args.images:
        asyncio.run(ask([path.read_bytes() for path in args.images], args.port))
    else:
        ImageColours("image_colours", "image-colours", rpc_port=args.port).run_forever()
