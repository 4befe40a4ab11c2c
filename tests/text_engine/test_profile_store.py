"""Profiles on disk: found again, and never a reason not to start."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

from vfastml.text_engine import profile_store
from vfastml.text_engine.decoders.native_decoder import NativeDecoder
from vfastml.text_engine.profile_store import ProfileKey, ProfileStore, device_name, model_digest
from vfastml.text_engine.step_profile import StepProfile, StepTime
from vfastml.text_engine.step_timing import StepBounds

KEY = ProfileKey("digest", "hf", "float32", "", "a processor", 2)
BOUNDS = StepBounds(num_seqs=8, num_tokens=64, context=128, prompt=512, longest_prefill_s=0.25)
PROFILE = StepProfile(decode=(StepTime(1, 0.01), StepTime(2, 0.011)), prefill=(StepTime(16, 0.1 + 0.2),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "not there yet"


@pytest.fixture
def written(folder: Path) -> Path:
    """The file of a stored profile."""
    ProfileStore(folder).save(KEY, BOUNDS, PROFILE)
    (path,) = folder.iterdir()
    return path


def found(folder: Path | None) -> StepProfile | None:
    return ProfileStore(folder).load(KEY, BOUNDS)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "vfastml"):
        yield caplog


def test_what_was_saved_is_found(folder: Path, written: Path, told: pytest.LogCaptureFixture) -> None:
    assert found(folder) == PROFILE
    assert told.records == []


def test_nothing_is_found_before_it_was_saved(folder: Path, told: pytest.LogCaptureFixture) -> None:
    assert found(folder) is None
    assert told.records == []


def test_a_later_one_replaces_it(folder: Path, written: Path) -> None:
    other = StepProfile(PROFILE.decode, (StepTime(16, 9.0),))
    ProfileStore(folder).save(KEY, BOUNDS, other)
    assert list(folder.iterdir()) == [written]
    assert found(folder) == other


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ProfileKey)])
def test_every_part_of_the_key_counts(folder: Path, written: Path, field: str) -> None:
    value = getattr(KEY, field)
    changed = value + "x" if isinstance(value, str) else (value or 0) + 1
    other = dataclasses.replace(KEY, **{field: changed})
    assert ProfileStore(folder).load(other, BOUNDS) is None


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(StepBounds)])
def test_steps_within_other_bounds_are_others(folder: Path, written: Path, field: str) -> None:
    other = dataclasses.replace(BOUNDS, **{field: getattr(BOUNDS, field) * 2})
    assert ProfileStore(folder).load(KEY, other) is None


def test_file_of_another_key_is_not_believed(folder: Path, written: Path) -> None:
    stored = json.loads(written.read_text())
    stored["key"]["device"] = "another processor"
    written.write_text(json.dumps(stored))
    assert found(folder) is None


@pytest.mark.parametrize(
    "change",
    [
        {"profile": {"decode": [], "prefill": []}},
        {"profile": {"decode": [{"tokens": 1, "seconds": -1}], "prefill": [{"tokens": 16, "seconds": 1}]}},
        {"profile": {"decode": [{"tokens": "1", "seconds": 1}], "prefill": [{"tokens": 16, "seconds": 1}]}},
        {"profile": {"decode": [{"tokens": 1, "seconds": 1}], "prefill": [{"tokens": 10**12, "seconds": 1}]}},
        {"profile": {"decode": [{"tokens": 9, "seconds": 1}], "prefill": [{"tokens": 16, "seconds": 1}]}},
        {"profile": None},
        {"key": {}},
        {"bounds": 3},
    ],
)
def test_file_with_other_content_is_measured_again(
    folder: Path, written: Path, told: pytest.LogCaptureFixture, change: dict[str, object]
) -> None:
    written.write_text(json.dumps(json.loads(written.read_text()) | change))
    assert found(folder) is None
    assert "cannot be used" in told.text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_broken_file_is_measured_again(
    folder: Path, written: Path, told: pytest.LogCaptureFixture, content: bytes
) -> None:
    written.write_bytes(content)
    assert found(folder) is None
    assert "cannot be used" in told.text
    ProfileStore(folder).save(KEY, BOUNDS, PROFILE)
    assert found(folder) == PROFILE


def test_folder_that_cannot_be_written(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store = ProfileStore(tmp_path / "file" / "profiles")
    store.save(KEY, BOUNDS, PROFILE)
    assert "measures again" in told.text
    assert store.load(KEY, BOUNDS) is None


def test_read_only_folder(folder: Path, written: Path, told: pytest.LogCaptureFixture) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    with pytest.MonkeyPatch.context() as patch:  # for root no folder is read-only
        patch.setattr(Path, "write_bytes", refuse)
        ProfileStore(folder).save(KEY, BOUNDS, StepProfile(PROFILE.decode, PROFILE.decode))
    assert "Permission denied" in told.text
    assert found(folder) == PROFILE


def test_write_that_breaks_off_leaves_the_old_one(folder: Path, written: Path) -> None:
    def fill_the_disk(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", fill_the_disk)
        ProfileStore(folder).save(KEY, BOUNDS, StepProfile(PROFILE.decode, PROFILE.decode))
    assert found(folder) == PROFILE
    assert list(folder.iterdir()) == [written]


def test_no_folder_keeps_nothing() -> None:
    ProfileStore(None).save(KEY, BOUNDS, PROFILE)
    assert found(None) is None


def test_the_oldest_go(folder: Path) -> None:
    store = ProfileStore(folder)
    keys = [dataclasses.replace(KEY, threads=number) for number in range(70)]
    for age, key in enumerate(keys):
        before = set(folder.iterdir()) if folder.exists() else set()
        store.save(key, BOUNDS, PROFILE)
        for path in set(folder.iterdir()) - before:
            os.utime(path, (age, age))
    assert [store.load(key, BOUNDS) is not None for key in keys] == [False] * 6 + [True] * 64


def test_only_profiles_count_and_go(folder: Path, told: pytest.LogCaptureFixture) -> None:
    folder.mkdir()
    foreign = [folder / f"{number}.txt" for number in range(64)]
    for path in foreign:
        path.write_text("")
        os.utime(path, (1, 1))
    for threads in (1, 2):
        ProfileStore(folder).save(dataclasses.replace(KEY, threads=threads), BOUNDS, PROFILE)
    assert len(list(folder.glob("*.json"))) == 2
    assert all(path.exists() for path in foreign)
    assert told.records == []


def test_profile_that_another_server_dropped_first(folder: Path, written: Path, told: pytest.LogCaptureFixture) -> None:
    (folder / "gone.json").symlink_to(folder / "dropped")  # listed, and not there any more
    ProfileStore(folder).save(dataclasses.replace(KEY, threads=3), BOUNDS, PROFILE)
    assert told.records == []


def test_digest_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digests = {model_digest(tmp_path)}
    assert digests == {model_digest(tmp_path)}
    os.utime(tmp_path / "model.safetensors", (1, 1))
    digests.add(model_digest(tmp_path))
    (tmp_path / "config.json").write_text('{"a": 1}')
    digests.add(model_digest(tmp_path))
    (tmp_path / "other.safetensors").write_bytes(b"")
    digests.add(model_digest(tmp_path))
    assert len(digests) == 4


def test_key_of_a_decoder(tiny_models: dict[str, Path]) -> None:
    decoder = SimpleNamespace(device=torch.device("cpu"), dtype=torch.bfloat16, kind="hf", attention="sdpa")
    key = ProfileKey.of(tiny_models["llama"], decoder, "int8")  # type: ignore[arg-type]
    assert (key.decoder, key.dtype, key.quantization) == ("hf", "bfloat16", "int8")
    assert key.attention == "sdpa"
    assert key.threads == torch.get_num_threads()
    assert key.torch_version == torch.__version__
    assert (key.kernels, key.transformers_version) == ("", transformers.__version__)
    assert key.device == device_name(torch.device("cpu")) != ""
    assert ProfileKey.of(tiny_models["qwen2"], decoder, "int8") != key  # type: ignore[arg-type]


def test_key_names_the_kernels(tiny_models: dict[str, Path]) -> None:
    decoder = NativeDecoder.__new__(NativeDecoder)  # needs no compiler
    decoder.device, decoder.dtype = torch.device("cpu"), torch.float32
    decoder.kernels = SimpleNamespace(name="vfastml-avx2-0123")  # type: ignore[assignment]
    assert ProfileKey.of(tiny_models["llama"], decoder, "").kernels == "vfastml-avx2-0123"


@pytest.mark.parametrize(("device", "counts"), [("cuda", True), ("cpu", False)])
def test_recorded_steps_are_part_of_the_key_on_a_gpu(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, device: str, counts: bool
) -> None:
    monkeypatch.setattr(profile_store, "device_name", str)
    decoder = SimpleNamespace(device=torch.device(device), dtype=torch.float32, kind="fused-triton", attention="triton")
    recorded, launched = (
        ProfileKey.of(tiny_models["llama"], decoder, "", cuda_graphs=asked)  # type: ignore[arg-type]
        for asked in (True, False)
    )
    assert (recorded != launched) == counts


def test_the_quota_is_part_of_the_key(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_store, "cpu_quota", lambda: 1.5)
    decoder = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, kind="hf", attention="sdpa")
    assert ProfileKey.of(tiny_models["llama"], decoder, "").cpu_quota == 1.5  # type: ignore[arg-type]
