"""What is decoded, and what is refused before or while it could be."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from vfastml.errors import InvalidRequestError
from vfastml.media import AudioBounds, decoded_audio

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
RATE = 16000
MOST_GROWTH_KIB = 64 << 10


def sound_bytes(kind: str, seconds: float = 0.5, channels: int = 1, subtype: str | None = None) -> bytes:
    tone = np.sin(np.arange(int(seconds * RATE)) * 0.05).astype(np.float32) * 0.5
    written = io.BytesIO()
    soundfile.write(written, np.repeat(tone[:, None], channels, axis=1), RATE, subtype=subtype, format=kind)
    return written.getvalue()


def flac_that_claims(samples: int) -> bytes:
    """Its header has 36 bits for how many samples there are."""
    data = bytearray(sound_bytes("FLAC"))
    word = int.from_bytes(data[18:26], "big")
    data[18:26] = ((word >> 36 << 36) | samples).to_bytes(8, "big")
    return bytes(data)


def wav_that_claims(num_bytes: int) -> bytes:
    data = sound_bytes("WAV")
    return data.replace(b"data" + data[40:44], b"data" + struct.pack("<I", num_bytes), 1)


def wav(channels: int, rate: int, bits: int = 16, content: bytes = b"\0" * 64, kind: int = 1) -> bytes:
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, (rate * width) & 0xFFFFFFFF, width & 0xFFFF, bits)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


BOMBS = {
    "FLAC of 49 days": flac_that_claims((1 << 36) - 1),
    "FLAC of an hour": flac_that_claims(3600 * RATE),
    "many channels": wav(64, 8000, content=b"\0" * 1024),
    "a rate of 4 GHz": wav(1, 0xFFFFFFFF),
    "no rate": wav(1, 0),
    "no channels": wav(0, 8000),
    "NaN": wav(1, 8000, 32, struct.pack("<4f", 0, float("nan"), 0, 0), kind=3),
    "infinity": wav(1, 8000, 32, struct.pack("<4f", 0, float("inf"), 0, 0), kind=3),
    "another coding": sound_bytes("WAV", subtype="IMA_ADPCM"),
    "AIFF": sound_bytes("AIFF"),
    "AU": sound_bytes("AU"),
    "CAF": sound_bytes("CAF"),
    "empty": b"",
    "text": b"hello",
    "an OGG head alone": sound_bytes("OGG")[:40],
    "more bytes than may be": sound_bytes("WAV") + bytes(16 << 20),
}


@pytest.mark.rule("S8")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidRequestError) as refused:
        decoded_audio(BOMBS[name])
    assert len(refused.value.message) < 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KIB


@pytest.mark.rule("S8")
@pytest.mark.parametrize("num_bytes", [0x7FFFFFFF, 0xFFFFFFF0])
def test_a_length_that_is_a_lie_takes_no_memory(num_bytes: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        samples, _ = decoded_audio(wav_that_claims(num_bytes))
        assert len(samples) <= RATE
    except InvalidRequestError:
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KIB


@pytest.mark.rule("S8")
@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_hours_of_silence_in_few_bytes(kind: str) -> None:
    written = io.BytesIO()
    with soundfile.SoundFile(written, "w", 8000, 1, format=kind) as sound:
        for _ in range(24):
            sound.write(np.zeros(8000 * 100, np.float32))
    assert len(written.getvalue()) < 1 << 20
    with pytest.raises(InvalidRequestError, match="longer"):
        decoded_audio(written.getvalue())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_sound_is_decoded(kind: str, channels: int) -> None:
    samples, rate = decoded_audio(sound_bytes(kind, channels=channels))
    assert (rate, samples.dtype, samples.shape[1]) == (RATE, np.float32, channels)
    assert abs(len(samples) - RATE // 2) < 3000  # MP3 has whole frames
    assert 0.4 < abs(samples).max() < 0.65


@pytest.mark.rule("S8")
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_each_bound_at_its_limit_and_beyond(kind: str) -> None:
    data = sound_bytes(kind, 0.5, channels=2)
    limits = {"max_bytes": len(data), "max_seconds": 0.5, "max_samples": RATE, "max_channels": 2, "max_rate": RATE}
    for name, most in limits.items():
        assert len(decoded_audio(data, AudioBounds(**{name: most}))[0]) == RATE // 2
        less = most - 0.01 if name == "max_seconds" else most - 1
        with pytest.raises(InvalidRequestError):
            decoded_audio(data, AudioBounds(**{name: less}))
    with pytest.raises(InvalidRequestError):
        decoded_audio(data, AudioBounds(formats=tuple(other for other in FORMATS if other != kind)))


@pytest.mark.rule("S8")
@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_a_file_that_ends_too_early_is_refused(kind: str) -> None:
    whole = sound_bytes(kind)
    for length in (1, 4, 20, 40, 60):
        with pytest.raises(InvalidRequestError):
            decoded_audio(whole[:length])


@pytest.mark.rule("S7")
def test_the_name_of_a_file_is_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(sound_bytes("WAV"))
    for name in (path, str(path), f"file://{path}", io.BytesIO(path.read_bytes())):
        with pytest.raises(TypeError):
            decoded_audio(name)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError):
        decoded_audio(str(path).encode())


@pytest.mark.rule("S8")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8))
def test_damaged_sounds_are_decoded_or_refused(kind: str, at: int, damage: bytes) -> None:
    data = bytearray(sound_bytes(kind, 0.05))
    data[at % len(data) : at % len(data) + len(damage)] = damage
    with contextlib.suppress(InvalidRequestError):
        samples, _ = decoded_audio(bytes(data))
        assert np.isfinite(samples).all()
