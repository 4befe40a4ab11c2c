"""Sounds from outside: their bytes, channels and samples are bounded before and while they are decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from vfastml.errors import InvalidRequestError

_BLOCK_FRAMES = 1 << 16
_CODINGS = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    "WAVEX": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}
"""Of each format that may be allowed: the common ones, not all that were ever put into it."""


@dataclass(frozen=True, slots=True)
class AudioBounds:
    """The most that a sound may have."""

    max_bytes: int = 16 << 20
    max_seconds: float = 1800.0
    max_samples: int = 1 << 26
    """Of all channels together, four bytes each."""
    max_channels: int = 8
    max_rate: int = 192_000
    """Samples of a channel in a second."""
    formats: tuple[str, ...] = ("WAV", "FLAC", "OGG", "MP3")
    """Found by content."""

    def max_frames(self, rate: int, channels: int) -> int:
        """Samples of each channel."""
        return int(min(self.max_seconds * rate, self.max_samples // channels))


_USUAL = AudioBounds()


def decoded_audio(data: bytes, bounds: AudioBounds = _USUAL) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """Samples as float32, frames x channels, between -1 and 1 unless the file itself says more, and their rate.

    Raises InvalidRequestError for what is beyond the bounds, of no allowed format, cut off or broken; TypeError for
    what is no bytes, such as the name of a file.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError("a sound is given as bytes")
    if len(data) > bounds.max_bytes:
        raise _refused(f"is larger than {bounds.max_bytes} bytes")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            return _samples(sound, bounds), sound.samplerate
    except InvalidRequestError:
        raise
    except Exception as error:  # a decoder may say anything of what is broken
        raise _refused("is broken, or of no format that is read") from error


def _samples(sound: soundfile.SoundFile, bounds: AudioBounds) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Block by block: a file may have more than it says, and memory is taken for what was decoded only."""
    _check_header(sound, bounds)
    most = bounds.max_frames(sound.samplerate, sound.channels)
    blocks, num_frames = [], 0
    while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        num_frames += len(block)
        if num_frames > most:
            raise _too_long(bounds)
        blocks.append(block)
    if num_frames < sound.frames:
        raise _refused("is shorter than it says")
    samples = np.concatenate(blocks) if blocks else np.zeros((0, sound.channels), np.float32)
    if not np.isfinite(samples).all():
        raise _refused("has samples that are no numbers")
    return samples


def _check_header(sound: soundfile.SoundFile, bounds: AudioBounds) -> None:
    kind = "WAV" if sound.format == "WAVEX" else sound.format
    if kind not in bounds.formats or sound.subtype not in _CODINGS.get(sound.format, ()):
        raise _refused(f"must be {' or '.join(bounds.formats)}, in one of its usual codings")
    if not 1 <= sound.channels <= bounds.max_channels:
        raise _refused(f"must have 1 to {bounds.max_channels} channels")
    if not 1 <= sound.samplerate <= bounds.max_rate:
        raise _refused(f"must have 1 to {bounds.max_rate} samples a second")
    if sound.frames > bounds.max_frames(sound.samplerate, sound.channels):
        raise _too_long(bounds)


def _too_long(bounds: AudioBounds) -> InvalidRequestError:
    return _refused(f"is longer than {bounds.max_seconds:g} seconds, or has more than {bounds.max_samples} samples")


def _refused(words: str) -> InvalidRequestError:
    return InvalidRequestError(f"The sound {words}.")
