"""Key files for tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfastml.entrypoints.keys.api_key import digest_of


def write_keys(file: Path, keys: Mapping[str, Mapping[str, Any]], head: str = "") -> None:
    """Each opened by its own name; what else is said of it is the value. Replaced as a whole."""
    text = head
    for name, said in keys.items():
        fields = {"name": name, "sha256": digest_of(name.encode()).hex(), **said}
        text += "[[key]]\n" + "".join(f"{field} = {_toml(value)}\n" for field, value in fields.items())
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.chmod(0o600)
    os.replace(new, file)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _toml(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value).replace("'", '"')
