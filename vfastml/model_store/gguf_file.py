"""GGUF files, each converted once."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from vfastml.model_store.cache import build_once
from vfastml.model_store.errors import ModelStoreError
from vfastml.model_store.progress import Progress

_NEEDED = ("torch", "transformers", "accelerate", "gguf")


def folder_of_gguf(gguf: Path, progress: Progress) -> Path:
    """The cached folder made of that file as it is now: another size or modification time is another folder."""
    if not gguf.is_file():
        raise ModelStoreError(f"There is no file {gguf}: check the path given as the model uri.")
    about = gguf.stat()
    key = hashlib.sha256(f"{gguf}\0{about.st_size}\0{about.st_mtime_ns}".encode(errors="surrogateescape")).hexdigest()
    return build_once(f"gguf-{key[:16]}", lambda folder: convert(gguf.stem, gguf, folder, progress), progress)


def check_can_convert() -> None:
    """Raises ModelStoreError where a package that `convert` needs is not installed; looks without importing any."""
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise ModelStoreError(f"GGUF files are converted with {package}: run `pip install 'vfastml[model]'`.")


def convert(model_id: str, gguf: Path, folder: Path, progress: Progress) -> None:
    """Fills `folder` with the Hugging Face form of that file. Raises ModelStoreError if that cannot be done."""
    check_can_convert()
    progress(f"converting {model_id}", None)
    # Imported late because it takes seconds and brings in torch, which a start from the cache need not wait for.
    from vfastml.model_store.gguf_conversion import convert_gguf

    convert_gguf(gguf, folder)
