"""What is decoded, and what is refused before it could be."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vfastml.errors import InvalidRequestError
from vfastml.media import ImageBounds, decoded_image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MOST_GROWTH_KIB = 64 << 10


def image_bytes(kind: str, size: tuple[int, int] = (7, 5), **options: Any) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, (200, 30, 40)).save(written, kind, **options)
    return written.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, compressed: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def animation(kind: str, num_frames: int) -> bytes:
    frames = [Image.new("RGB", (4, 4), (number * 90 % 256, number // 256 * 90, 9)) for number in range(num_frames)]
    written = io.BytesIO()
    frames[0].save(written, kind, save_all=True, append_images=frames[1:])
    return written.getvalue()


def scans(count: int) -> bytes:
    whole = image_bytes("JPEG", (64, 64), progressive=True)
    at = whole.rindex(b"\xff\xda")
    return whole[:at] + whole[at:-2] * count + whole[-2:]


def with_extended_webp(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", 0) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    content = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + image_bytes("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(content)) + content


BOMBS = {
    "65k x 65k header": png(65_000, 65_000, zlib.compress(b"")),
    "many pixels in few bytes": png(16_000, 16_000, zlib.compress(bytes(16_000 * 3 * 64), 9)),
    "one long line": png(2**31 - 1, 1, zlib.compress(b"")),
    "no width": png(0, 5, zlib.compress(b"")),
    "GIF of 65535 x 65535": b"GIF89a" + struct.pack("<HH", 65535, 65535) + image_bytes("GIF")[10:],
    "frames of a GIF": animation("GIF", 500),
    "frames of a WebP": animation("WEBP", 200),
    "WebP of 16384 x 16384": with_extended_webp(16384, 16384),
    "scans of a JPEG": scans(5000),
    "JPEG without a size": b"\xff\xd8\xff\xe0" + b"\x00\x10" * 20,
    "endless filling": b"\xff\xd8" + b"\xff" * 1_000_000,
    "empty": b"",
    "text": b"hello",
    "program": b"#!/bin/sh\necho hello\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "TIFF": image_bytes("TIFF"),
    "BMP": image_bytes("BMP"),
    "RIFF that is a sound": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40),
    "more bytes than may be": image_bytes("PNG") + bytes(16 << 20),
}


@pytest.mark.rule("S8")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidRequestError) as refused:
        decoded_image(BOMBS[name])
    assert len(refused.value.message) < 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KIB


@pytest.mark.parametrize("kind", FORMATS)
def test_the_image_is_decoded(kind: str) -> None:
    image = decoded_image(image_bytes(kind))
    assert image.size == (7, 5)
    red, green, blue = image.convert("RGB").getpixel((3, 2))
    assert abs(red - 200) < 12
    assert abs(green - 30) < 12
    assert abs(blue - 40) < 12


@pytest.mark.rule("S8")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_ends_too_early_is_refused(kind: str) -> None:
    whole = image_bytes(kind, (64, 64))
    for length in {1, 4, 12, 20, 29, len(whole) // 3}:
        with pytest.raises(InvalidRequestError):
            decoded_image(whole[:length])


@pytest.mark.rule("S8")
@pytest.mark.parametrize("kind", FORMATS)
def test_each_bound_at_its_limit_and_beyond(kind: str) -> None:
    data = image_bytes(kind, (8, 8))
    for name, most in (("max_bytes", len(data)), ("max_pixels", 64), ("max_side", 8)):
        assert decoded_image(data, ImageBounds(**{name: most})).size == (8, 8)
        with pytest.raises(InvalidRequestError):
            decoded_image(data, ImageBounds(**{name: most - 1}))
    with pytest.raises(InvalidRequestError):
        decoded_image(data, ImageBounds(formats=tuple(other for other in FORMATS if other != kind)))


@pytest.mark.rule("S8")
@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_frames_are_bounded(kind: str) -> None:
    assert decoded_image(animation(kind, 3), ImageBounds(max_frames=3)).size == (4, 4)
    with pytest.raises(InvalidRequestError, match="frames"):
        decoded_image(animation(kind, 4), ImageBounds(max_frames=3))


@pytest.mark.rule("S7")
def test_the_name_of_a_file_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(image_bytes("PNG"))
    for name in (path, str(path), f"file://{path}", io.BytesIO(path.read_bytes())):
        with pytest.raises(TypeError):
            decoded_image(name)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError):
        decoded_image(str(path).encode())


@pytest.mark.rule("S8")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8))
def test_damaged_images_are_decoded_or_refused(kind: str, at: int, damage: bytes) -> None:
    data = bytearray(image_bytes(kind))
    data[at % len(data) : at % len(data) + len(damage)] = damage
    with contextlib.suppress(InvalidRequestError):
        assert decoded_image(bytes(data)).size[0] >= 1
