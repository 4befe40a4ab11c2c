"""`python -m tests.fuzz.decoders --seconds 600`: bytes for all that decodes bytes from outside.

atheris changes them by what the code does with them; the first byte chooses the decoder. A crash, or an exception that
is none of the promised ones, ends it with a status that is not 0 and the bytes in a file `crash-*`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["vfastml"]):
    from tests.fuzz.frame_cases import reply_frame, request_frame
    from tests.fuzz.http_cases import body_bytes
    from tests.fuzz.test_bodies import PATHS, SCHEMAS
    from tests.media.test_audio import sound_bytes
    from tests.media.test_image import image_bytes
    from vfastml.engine.wire import decode_reply, decode_request, encode_reply, encode_request, sealed
    from vfastml.entrypoints.keys.key_file import parse_toml
    from vfastml.entrypoints.tracing.caller import caller_of
    from vfastml.entrypoints.validation import parse_body
    from vfastml.errors import UserError
    from vfastml.media import AudioBounds, ImageBounds, decoded_audio, decoded_image

import msgspec

_SEEDS = 300
_LONGEST = 4096
_IMAGE = ImageBounds(max_pixels=1 << 16)
_SOUND = AudioBounds(max_samples=1 << 16)
_KEYS = f"""
[defaults]
max_open = 4
[[key]]
name = "bench"
sha256 = "{"ab" * 32}"
models = ["m"]
requests_per_minute = 60
tokens_per_minute = 1000
quota_tokens = 5
quota_per = "month"
weight = 2.5
[[key]]
name = "ops"
sha256 = "{"cd" * 32}"
admin = true
""".encode()
_TRACEPARENT = f"00-{'ab' * 16}-{'cd' * 8}-01".encode()


def request(data: bytes) -> None:
    """What is understood is the same when it is said again."""
    with contextlib.suppress(msgspec.DecodeError):
        again = encode_request(decode_request(sealed(data)))
        assert encode_request(decode_request(again)) == again


def reply(data: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError):
        again = encode_reply(decode_reply(sealed(data)))
        assert encode_reply(decode_reply(again)) == again


def body(path: str) -> Callable[[bytes], None]:
    def decode(data: bytes) -> None:
        with contextlib.suppress(UserError):
            work = parse_body(data, SCHEMAS[path]).to_work("r")
            for one in work if isinstance(work, list) else [work]:
                assert decode_request(encode_request(one)) == one

    return decode


def image(data: bytes) -> None:
    with contextlib.suppress(UserError):
        decoded_image(data, _IMAGE)


def sound(data: bytes) -> None:
    with contextlib.suppress(UserError):
        decoded_audio(data, _SOUND)


def keys(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        names = [key.name for key in parse_toml(data.decode())]
        assert len(set(names)) == len(names)


def traceparent(data: bytes) -> None:
    caller = caller_of([(b"traceparent", data)])
    assert caller is None or data[3:35].decode() == caller.trace_id_text


DECODERS = [request, reply, *map(body, PATHS), image, sound, keys, traceparent]


def decode_one(data: bytes) -> None:
    if data:
        DECODERS[data[0] % len(DECODERS)](data[1:])


def write_seeds(folder: Path) -> None:
    """Some of what is sound, or nearly so, for each decoder."""
    for seed in range(_SEEDS):
        rng = Random(seed)
        number = seed % len(DECODERS)
        kind = DECODERS[number]
        if kind is request:
            data = request_frame(rng, "r")[:-4]
        elif kind is reply:
            data = reply_frame(rng, "r")[:-4]
        elif kind is image:
            data = image_bytes(rng.choice(("PNG", "JPEG", "WEBP", "GIF")))
        elif kind is sound:
            data = sound_bytes(rng.choice(("WAV", "FLAC", "OGG", "MP3")), 0.05)
        elif kind is keys:
            data = _KEYS
        elif kind is traceparent:
            data = _TRACEPARENT
        else:
            data = body_bytes(rng, PATHS[number - 2])
        (folder / str(seed)).write_bytes(bytes([number]) + data[:_LONGEST])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.decoders")
    parser.add_argument("--seconds", type=int, default=600, help="how long to go on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_seeds(Path(folder))
        limits = [f"-max_total_time={options.seconds}", f"-max_len={_LONGEST}", "-timeout=30", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *limits, f"-seed={options.seed}", folder], decode_one)
        atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
