"""Keeps step profiles on disk, so that only the first start of a model on a machine measures."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
import transformers

from vfastml import __version__
from vfastml.text_engine.cpu_threads import cpu_quota, num_compute_threads
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.decoders.native_decoder import NativeDecoder
from vfastml.text_engine.step_profile import StepProfile
from vfastml.text_engine.step_timing import StepBounds

logger = logging.getLogger(__name__)

_MOST_FILES = 64
"""More than that, and the oldest goes: each model, version and setting makes its own."""
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """All that step times depend on: a profile stands for no other."""

    model: str
    """Digest of the model's config and of its weights' names, sizes and times of change."""
    decoder: str
    dtype: str
    quantization: str
    device: str
    threads: int
    kernels: str = ""
    """Level and digest of our compiled kernels, where they compute."""
    cpu_quota: float | None = None
    attention: str = ""
    cuda_graphs: bool = False
    """Whether decode steps on a GPU were recorded: launched one kernel at a time they take another time."""
    vfastml_version: str = __version__
    torch_version: str = str(torch.__version__)
    transformers_version: str = transformers.__version__

    @classmethod
    def of(cls, folder: Path, decoder: Decoder, quantization: str, *, cuda_graphs: bool = False) -> ProfileKey:
        """The key of a loaded decoder. `cuda_graphs` is EngineConfig's, and counts on a GPU alone. Raises OSError for a
        folder that is gone."""
        device = device_name(decoder.device)
        dtype = str(decoder.dtype).removeprefix("torch.")
        threads = num_compute_threads()
        kernels = decoder.kernels.name if isinstance(decoder, NativeDecoder) else ""
        digest = model_digest(folder)
        graphs = cuda_graphs and decoder.device.type == "cuda"
        return cls(
            digest, decoder.kind, dtype, quantization, device, threads, kernels, cpu_quota(), decoder.attention, graphs
        )


@dataclass(frozen=True, slots=True)
class _StoredProfile:
    key: ProfileKey
    bounds: StepBounds
    profile: StepProfile

    def __post_init__(self) -> None:
        """Raises ValueError for steps that those bounds do not allow."""
        most_seqs, most_tokens = self.profile.decode[-1].tokens, self.profile.prefill[-1].tokens
        if most_seqs > self.bounds.num_seqs or most_tokens > self.bounds.num_tokens:
            raise ValueError("its steps are larger than its bounds")


class ProfileStore:
    """Profiles as JSON files in a folder, which need not exist; None: nothing is kept. Never raises: a profile that
    cannot be read or written costs a measurement, no start."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def load(self, key: ProfileKey, bounds: StepBounds) -> StepProfile | None:
        """The profile of that key within those bounds, if there is one that can be read."""
        if self._folder is None:
            return None
        try:
            stored = msgspec.json.decode((self._folder / _file_name(key, bounds)).read_bytes(), type=_StoredProfile)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            logger.info("the kept profile cannot be used (%s)", error)
            return None
        return stored.profile if (stored.key, stored.bounds) == (key, bounds) else None

    def save(self, key: ProfileKey, bounds: StepBounds, profile: StepProfile) -> None:
        """Replaces an earlier one at once: a reader sees the old file or the new one."""
        if self._folder is None:
            return
        path = self._folder / _file_name(key, bounds)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(msgspec.json.encode(_StoredProfile(key, bounds, profile)))
            partial.replace(path)
            self._drop_oldest()
        except OSError as error:
            logger.info("the profile cannot be kept (%s): the next start measures again", error)
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _drop_oldest(self) -> None:
        assert self._folder is not None
        by_age: list[tuple[float, Path]] = []
        for path in self._folder.glob("*.json"):
            with suppress(FileNotFoundError):  # another server drops them too
                by_age.append((path.stat().st_mtime, path))
        for _, path in sorted(by_age, reverse=True)[_MOST_FILES:]:
            with suppress(OSError):  # the new profile is kept all the same
                path.unlink()


def _file_name(key: ProfileKey, bounds: StepBounds) -> str:
    return hashlib.sha256(msgspec.json.encode((key, bounds))).hexdigest()[:32] + ".json"


def model_digest(folder: Path) -> str:
    """Changes when the config or the weights do; weights are not read. Raises OSError."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        about = path.stat()
        digest.update(f"{path.name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def device_name(device: torch.device) -> str:
    """What the device is called by its maker."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
