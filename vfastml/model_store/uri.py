"""What a model uri names, read from its text alone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from vfastml.model_store.errors import ModelStoreError

DEFAULT_MODEL = "builtin:smollm2-135m-instruct"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_ACCEPTED = "use builtin:NAME, ./FOLDER, FILE.gguf, or a hub id such as org/name"


class Kind(Enum):
    """Where a model comes from."""

    BUILTIN = "builtin"
    FOLDER = "folder"
    GGUF = "gguf"
    HUB = "hub"


@dataclass(frozen=True)
class ModelUri:
    """A uri taken apart. `name` is the built-in's name, the hub id, or the path as it was written."""

    kind: Kind
    name: str

    @property
    def path(self) -> Path:
        """The absolute path that a folder or GGUF uri names, with `~` and `..` resolved by text."""
        return Path(os.path.abspath(os.path.expanduser(self.name)))

    @property
    def model_id(self) -> str:
        """What clients call the model."""
        if self.kind is Kind.FOLDER:
            return self.path.name
        return self.path.stem if self.kind is Kind.GGUF else self.name


def parse_uri(model_uri: str) -> ModelUri:
    """Tells the kinds apart. `org/name` is always a hub id: a relative folder is written `./org/name`.

    Raises ModelStoreError for a scheme that is not known, and for what is no path and no hub id.
    """
    if scheme := _SCHEME.match(model_uri):
        if scheme[1] != "builtin":
            raise ModelStoreError(f"Model uris of scheme {scheme[1]}: are not known; {_ACCEPTED}.")
        return ModelUri(Kind.BUILTIN, model_uri[scheme.end() :])
    if model_uri.lower().endswith(".gguf"):
        return ModelUri(Kind.GGUF, model_uri)
    if _looks_like_a_path(model_uri):
        return ModelUri(Kind.FOLDER, model_uri)
    if not _HUB_ID.fullmatch(model_uri):
        raise ModelStoreError(f"{model_uri!r} is not a model uri; {_ACCEPTED}.")
    return ModelUri(Kind.HUB, model_uri)


def _looks_like_a_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..") or text.endswith("/") or text.count("/") > 1
