"""Images from outside: their bytes, pixels and frames are bounded before anything is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from vfastml.errors import InvalidRequestError
from vfastml.media.image_header import ImageHeader, image_header

_MOST_SCANS = 100
"""Of a progressive JPEG, each of which costs a pass over all its pixels, however few bytes it has; ordinary ones have
ten."""
_JPEG_SCAN = b"\xff\xda"


@dataclass(frozen=True, slots=True)
class ImageBounds:
    """The most that an image may have."""

    max_bytes: int = 16 << 20
    max_pixels: int = 1 << 24
    max_side: int = 16384
    max_frames: int = 1
    """Of an animation, of which the first frame is decoded."""
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF")
    """Found by content."""


_USUAL = ImageBounds()


def decoded_image(data: bytes, bounds: ImageBounds = _USUAL) -> Image.Image:
    """The image, decoded, in its own mode: `convert("RGB")` is for the caller. At most four bytes a pixel are held.

    Raises InvalidRequestError for what is beyond the bounds, of no allowed format, cut off or broken; TypeError for
    what is no bytes, such as the name of a file.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError("an image is given as bytes")
    if len(data) > bounds.max_bytes:
        raise _refused(f"is larger than {bounds.max_bytes} bytes")
    content = bytes(data)
    header = image_header(content)
    if header is None or header.format not in bounds.formats:
        raise _refused(f"must be {' or '.join(bounds.formats)}, whole")
    _check_size(header.width, header.height, bounds)
    _check_scans(header, content)
    return _decoded(content, header, bounds)


def _decoded(data: bytes, header: ImageHeader, bounds: ImageBounds) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=(header.format,))
        _check_size(*image.size, bounds)
        if getattr(image, "n_frames", 1) > bounds.max_frames:
            raise _refused(f"has more than {bounds.max_frames} frames")
        image.load()
        _check_size(*image.size, bounds)
    except InvalidRequestError:
        raise
    except Exception as error:  # a decoder may say anything of what is broken
        raise _refused("is broken") from error
    return image


def _check_size(width: int, height: int, bounds: ImageBounds) -> None:
    if not (1 <= width <= bounds.max_side and 1 <= height <= bounds.max_side):
        raise _refused(f"must have sides of 1 to {bounds.max_side} pixels")
    if width * height > bounds.max_pixels:
        raise _refused(f"has more than {bounds.max_pixels} pixels")


def _check_scans(header: ImageHeader, data: bytes) -> None:
    if header.format == "JPEG" and data.count(_JPEG_SCAN) > _MOST_SCANS:
        raise _refused(f"has more than {_MOST_SCANS} scans")


def _refused(words: str) -> InvalidRequestError:
    return InvalidRequestError(f"The image {words}.")
