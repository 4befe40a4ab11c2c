"""What of models is on this machine's disk, ready to be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CacheNotFound, constants, scan_cache_dir

from vfastml.model_store.builtin import BUILTINS
from vfastml.model_store.cache import folder_of
from vfastml.model_store.hub import is_whole


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A line of the list."""

    uri: str
    """For --model-uri, or the name that a service knows it by."""
    source: str
    state: str
    size_bytes: int | None = None
    """On disk, or to be downloaded; None where that says nothing."""


def stored_models() -> Iterator[ListedModel]:
    """The built-in models, fetched or not, then those in the hub's cache of which a revision is whole."""
    for name, packaged in BUILTINS.items():
        folder = folder_of(name)
        cached = folder.is_dir()
        size = _size_of(folder) if cached else packaged.wheel_bytes
        yield ListedModel(f"builtin:{name}", "built in", "cached" if cached else "to be downloaded", size)
    yield from _hub_models()


def _hub_models() -> Iterator[ListedModel]:
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        whole = any(is_whole(revision.snapshot_path) for revision in repository.revisions)
        if repository.repo_type == "model" and whole:
            yield ListedModel(repository.repo_id, "hub", "cached", repository.size_on_disk)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
