"""Models of the Hugging Face hub, in the hub's own cache."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vfastml.model_store.errors import ModelStoreError
from vfastml.model_store.model_folder import check_folder, missing_weights
from vfastml.model_store.progress import Progress

_WEIGHTS = "model*.safetensors"
_WANTED = ["*.json", _WEIGHTS, "*.model", "*.txt", "*.tiktoken", "*.jinja"]
"""Neither code nor pickles; of the weights those that transformers reads, not the copies in other layouts."""

_READS_INPUT = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "preprocessor_config.json")
_ENV_TOKENS = ("HF_ACCESS_TOKEN", "HF_TOKEN")


def folder_of_hub_model(
    hub_id: str, token: str | None, revision: str | None, progress: Progress, *, with_weights: bool = True
) -> Path:
    """The snapshot of that model's default branch, or of that branch, tag or commit: the cached one if it is whole,
    without a look at the hub.

    HF_HOME and HF_HUB_OFFLINE hold. Raises ModelStoreError when the model cannot be had or is not of safetensors.
    """
    token = token or next(filter(None, map(os.environ.get, _ENV_TOKENS)), None)
    folder = _cached(hub_id, revision, with_weights) or _downloaded(hub_id, token, revision, with_weights, progress)
    return check_folder(folder, name=hub_id, with_weights=with_weights)


def _cached(hub_id: str, revision: str | None, with_weights: bool) -> Path | None:
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=_WANTED, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if is_whole(folder, with_weights=with_weights) else None


def is_whole(folder: Path, *, with_weights: bool = True) -> bool:
    """Whether a snapshot can be loaded: the hub's cache also holds what an interrupted download, or a reader of the
    config alone, has left there."""
    reads_input = any((folder / name).is_file() for name in _READS_INPUT)
    has_weights = not with_weights or not missing_weights(folder)
    return (folder / "config.json").is_file() and reads_input and has_weights


def _downloaded(hub_id: str, token: str | None, revision: str | None, with_weights: bool, progress: Progress) -> Path:
    progress(f"downloading {hub_id}", None)
    wanted = [pattern for pattern in _WANTED if with_weights or pattern != _WEIGHTS]
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=wanted, token=token))
    except Exception as error:  # the HTTP client under it has errors of its own, and they change with its version
        raise ModelStoreError(f"{_reason(hub_id, error)}{_hint(hub_id)}") from error


def _reason(hub_id: str, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return f"{hub_id} is gated: accept its terms on the hub, and set HF_ACCESS_TOKEN to a token of that account."
    if isinstance(error, RepositoryNotFoundError):
        return f"The hub has no model {hub_id}, or the token may not see it: check the name, and set HF_ACCESS_TOKEN."
    if isinstance(error, RevisionNotFoundError):
        return f"{hub_id} has no such revision on the hub: give one of its branches, tags or commits."
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"{hub_id} is not in the local cache and the hub cannot be reached: connect once, or give a local folder."
        )
    return f"{hub_id} could not be downloaded from the hub ({error}): start again to go on with it."


def _hint(hub_id: str) -> str:
    return f" For the folder of that name here write ./{hub_id}." if Path(hub_id).is_dir() else ""
