"""Model uri to folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfastml.model_store.builtin import folder_of_builtin
from vfastml.model_store.errors import ModelStoreError
from vfastml.model_store.gguf_file import folder_of_gguf
from vfastml.model_store.hub import folder_of_hub_model
from vfastml.model_store.model_folder import check_folder
from vfastml.model_store.progress import Progress, ignore
from vfastml.model_store.uri import Kind, ModelUri, parse_uri


@dataclass(frozen=True)
class StoredModel:
    """A model on this machine's disk."""

    folder: Path
    """A plain Hugging Face folder: config, tokenizer, and safetensors where weights were wanted."""
    model_id: str
    """What clients call it."""
    uri: str
    """As it was given."""


def resolve_model(
    model_uri: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    with_weights: bool = True,
    progress: Progress = ignore,
) -> StoredModel:
    """The folder of that model, downloaded and converted first where need be.

    `token` is for the hub, and goes before HF_ACCESS_TOKEN and HF_TOKEN; `revision` is a branch, tag or commit there.
    Without weights a folder may lack them, and none are downloaded from the hub. Raises ModelStoreError.
    """
    uri = parse_uri(model_uri)
    if revision is not None and uri.kind is not Kind.HUB:
        raise ModelStoreError(f"{model_uri} is not on a hub, so it has no revision: leave that out.")
    folder = _folder(uri, token, revision, with_weights, progress)
    return StoredModel(folder=folder, model_id=uri.model_id, uri=model_uri)


def _folder(uri: ModelUri, token: str | None, revision: str | None, with_weights: bool, progress: Progress) -> Path:
    match uri.kind:
        case Kind.BUILTIN:
            return folder_of_builtin(uri.name, progress)
        case Kind.FOLDER:
            return check_folder(uri.path, name=uri.name, with_weights=with_weights)
        case Kind.GGUF:
            return folder_of_gguf(uri.path, progress)
        case Kind.HUB:
            return folder_of_hub_model(uri.name, token, revision, progress, with_weights=with_weights)
