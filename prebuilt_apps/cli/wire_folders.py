"""The folders of wire keys, as `vfastml keys wire` makes and changes them (see vfastml/engine/wire_keys.py)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from zmq.auth import create_certificates

from vfastml.engine.wire_keys import (
    GATEWAY_SECRET,
    SERVER_SECRET,
    WireKeyError,
    gateway_file,
    read_pair,
    read_public,
    server_file,
)

_OTHERS = 0o077


class WireFolders:
    """Those within one folder, which is for this user alone. A secret is never overwritten."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, server: str, gateways: Iterable[str]) -> list[str]:
        """A model server's folder and those of its gateways; what is there is kept. Returns what to tell the operator.
        Raises WireKeyError and OSError."""
        _own_folder(self._folder)
        secret = self._server(server) / SERVER_SECRET
        told = [_add_pair(secret, f"model server {server}")]
        for gateway in gateways:
            of_gateway = self._gateway(gateway) / GATEWAY_SECRET
            told.append(_add_pair(of_gateway, f"gateway {gateway}"))
            _introduce(of_gateway, secret.parent / gateway_file(gateway))
            _introduce(secret, of_gateway.parent / server_file(server))
        return told

    def revoke(self, gateway: str) -> list[str]:
        """Takes the gateway off all lists. Its key is deleted: made again, it gets another one. Raises WireKeyError and
        OSError."""
        lists = sorted(self._folder.glob(f"server-*/{gateway_file(gateway)}"))
        folder = self._gateway(gateway)
        if not (lists or folder.is_dir()):
            raise WireKeyError(f"no gateway {gateway!r} is known in {self._folder}")
        secret = folder / GATEWAY_SECRET
        for file in [*lists, secret, _public(secret), *folder.glob(server_file("*"))]:
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is in it, or it was not here
            folder.rmdir()
        places = ", ".join(str(file.parent) for file in lists) or "no list of a model server"
        return [f"{gateway} was taken off {places}; delete {gateway_file(gateway)} in copies that are in use, too"]

    def _server(self, name: str) -> Path:
        return self._folder / f"server-{name}"

    def _gateway(self, name: str) -> Path:
        return self._folder / f"gateway-{name}"


def _own_folder(folder: Path) -> None:
    """Makes it, for this user alone. Raises WireKeyError if it is there and others can enter."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
        raise WireKeyError(f"other users can enter {folder}: `chmod 700` it, or choose another folder")


def _add_pair(secret: Path, whose: str) -> str:
    """Unless it is there. Returns what was done."""
    _own_folder(secret.parent)
    is_new = not os.path.lexists(secret)
    if is_new:
        with tempfile.TemporaryDirectory(dir=secret.parent) as scratch:
            public, made = create_certificates(scratch, "pair")
            os.chmod(made, 0o600)
            os.link(made, secret)  # which does not take the place of one that has come meanwhile
            os.replace(public, _public(secret))
    return f"{whose}: {'made' if is_new else 'kept'} its key; start it with --wire-keys {secret.parent}"


def _introduce(secret: Path, place: Path) -> None:
    """The public half of that pair in the other end's folder."""
    public = _public(secret)
    if read_public(public) != read_pair(secret).public:
        raise WireKeyError(f"{public} is not the public half of {secret}")
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        copy = Path(scratch) / place.name
        shutil.copyfile(public, copy)
        os.replace(copy, place)


def _public(secret: Path) -> Path:
    """Where zmq.auth has it."""
    return secret.with_suffix(".key")
