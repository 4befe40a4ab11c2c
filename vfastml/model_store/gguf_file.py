"""GGUF files, each converted once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vfastml.model_store.cache import build_once
from vfastml.model_store.errors import ModelStoreError
from vfastml.model_store.progress import Progress


def folder_of_gguf(gguf: Path, progress: Progress) -> Path:
    """The cached folder made of that file as it is now: another size or modification time is another folder."""
    if not gguf.is_file():
        raise ModelStoreError(f"There is no file {gguf}: check the path given as the model uri.")
    about = gguf.stat()
    key = hashlib.sha256(f"{gguf}\0{about.st_size}\0{about.st_mtime_ns}".encode(errors="surrogateescape")).hexdigest()
    return build_once(f"gguf-{key[:16]}", lambda folder: convert(gguf.stem, gguf, folder, progress), progress)


def convert(model_id: str, gguf: Path, folder: Path, progress: Progress) -> None:
    """Fills `folder` with the Hugging Face form of that file. Raises ModelStoreError if that cannot be done."""
    progress(f"converting {model_id}", None)
    # Imported late because it takes seconds and brings in torch, which a start from the cache need not wait for.
    try:
        from vfastml.model_store.gguf_conversion import convert_gguf
    except ImportError as error:
        raise ModelStoreError(
            f"A GGUF file is converted with packages of which one is missing ({error}): "
            "run `pip install torch transformers accelerate gguf`."
        ) from error
    convert_gguf(gguf, folder)
