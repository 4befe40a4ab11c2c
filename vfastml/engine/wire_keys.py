"""Who may speak on the wire: CURVE key pairs, in the files that zmq.auth writes.

A folder is flat, so that it can be a Kubernetes Secret, and its names say what is what:

    of a model server: server.key_secret     its own pair        gateway-NAME.key  a gateway that may connect
    of a gateway:      gateway.key_secret    its own pair        server-NAME.key   a model server that it connects to

Whoever has a model server's folder has its secret, and is let in by it as well: `vfastml serve` and `vfastml health`
need no other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from vfastml.utils.file_stamp import file_stamp

SERVER_SECRET = "server.key_secret"
GATEWAY_SECRET = "gateway.key_secret"

_KEY_CHARS = 40
"""Of a key of 32 bytes in Z85."""


class WireKeyError(ValueError):
    """Keys cannot be used as they are. The message is a sentence for the operator, and shows no key."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One end's own, in Z85."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DealerKeys:
    """What a gateway's connection to one model server needs."""

    own: KeyPair
    server: bytes
    """The model server's public key, in Z85: nobody else can answer."""


def gateway_file(name: str) -> str:
    """Of the gateway's public key, in the folder of a model server."""
    return f"gateway-{name}.key"


def server_file(name: str) -> str:
    """Of the model server's public key, in the folder of a gateway."""
    return f"server-{name}.key"


class ServerKeys:
    """The folder of a model server. Raises WireKeyError, when made, for one that cannot be used or lets nobody in."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        _check_folder(self._folder)
        self.pair = read_pair(self._folder / SERVER_SECRET)
        if not self._files():
            raise WireKeyError(
                f"{self._folder} lets no gateway in: `vfastml keys wire` makes a {gateway_file('NAME')} for each"
            )
        self._seen: tuple[object, ...] | None = self._state()
        self._names = self._read(skip_bad=False)
        self.unreadable: tuple[str, ...] = ()
        """Files that say nothing, and let nobody in, since the last `refresh`."""

    def name_of(self, key: bytes) -> str | None:
        """Of the gateway with that public key; None: it may not speak here."""
        return "this server itself" if key == self.pair.public else self._names.get(key)

    def refresh(self) -> None:
        """Reads who may connect anew, if the folder has changed. What cannot be read lets nobody in; while the folder
        itself cannot be read, who was in it stays."""
        try:
            state = self._state()
            if state != self._seen:
                self._names = self._read(skip_bad=True)
                self._seen = state
        except OSError:
            self.unreadable = (self._folder.name,)
            self._seen = None

    def _read(self, *, skip_bad: bool) -> dict[bytes, str]:
        names: dict[bytes, str] = {}
        bad: list[str] = []
        for file in self._files():
            try:
                names[read_public(file)] = _name(file)
            except WireKeyError:
                if not skip_bad:
                    raise
                bad.append(file.name)
        self.unreadable = tuple(bad)
        return names

    def _files(self) -> list[Path]:
        """Raises OSError for a folder that cannot be read; one that is gone has none."""
        pattern = gateway_file("*")
        with suppress(FileNotFoundError):
            return sorted(self._folder / name for name in os.listdir(self._folder) if fnmatchcase(name, pattern))
        return []

    def _state(self) -> tuple[object, ...]:
        """Differs when a file has come, gone or changed. Kubernetes changes what all of them are links to."""
        return tuple((file.name, file_stamp(file)) for file in self._files())


class GatewayKeys:
    """The folder of a gateway, read anew for each connection: a key that was replaced is taken at the next one."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def check(self, endpoints: Iterable[str]) -> None:
        """Raises WireKeyError if one of them could not be connected to."""
        for endpoint in endpoints:
            self.keys_for(endpoint)

    def keys_for(self, endpoint: str) -> DealerKeys | None:
        """For that model server; None for an ipc:// one, which its folder guards. Raises WireKeyError."""
        if not endpoint.startswith("tcp://"):
            return None
        _check_folder(self._folder)
        own = read_pair(self._own_file())
        return DealerKeys(own, self._key_of(endpoint) or own.public)

    def _own_file(self) -> Path:
        file, of_server = self._folder / GATEWAY_SECRET, self._folder / SERVER_SECRET
        return of_server if of_server.exists() and not file.exists() else file

    def _key_of(self, endpoint: str) -> bytes | None:
        """That of the file which is called like the host, or of the only one; None if the folder is a server's own."""
        files = {_name(file): file for file in self._folder.glob(server_file("*"))}
        parts = urlsplit(endpoint)
        for name in (f"{parts.hostname}_{parts.port}", f"{parts.hostname}"):
            if name in files:
                return read_public(files[name])
        if len(files) == 1:
            return read_public(*files.values())
        if files:
            raise WireKeyError(
                f"{self._folder} has keys of several model servers, and none is called "
                f"{server_file(str(parts.hostname))}, for {endpoint}"
            )
        if self._own_file().name != SERVER_SECRET:
            raise WireKeyError(f"{self._folder} has no {server_file('NAME')} of a model server")
        return None


def read_pair(file: Path) -> KeyPair:
    """A secret certificate. Raises WireKeyError for one that is missing, malformed, or that others may read."""
    public, secret = _certificate(file)
    _check_private(file)
    if secret is None or _public_of(secret) != public:
        raise WireKeyError(f"{file} is no secret certificate: its keys are malformed, or do not belong together")
    return KeyPair(public, secret)


def read_public(file: Path) -> bytes:
    """The public key of a certificate. Raises WireKeyError for one that is missing or malformed."""
    return _certificate(file)[0]


def _certificate(file: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = load_certificate(file)
    except OSError as error:
        reason = error.strerror or "it does not exist"
        raise WireKeyError(f"{file} cannot be read: {reason}") from None
    except ValueError:
        raise WireKeyError(f"{file} is no certificate: it has no public key") from None
    if not _is_key(public):
        raise WireKeyError(f"{file} is no certificate: its public key is malformed")
    return public, secret


def _is_key(key: bytes) -> bool:
    return len(key) == _KEY_CHARS and all(char in z85.Z85CHARS for char in key)


def _public_of(secret: bytes) -> bytes | None:
    return bytes(zmq.curve_public(secret)) if _is_key(secret) else None


def _check_private(file: Path) -> None:
    """By the rule of PostgreSQL and others: root may give a file to a group, as Kubernetes does with its Secrets."""
    found = file.stat()
    is_ours = found.st_uid == os.geteuid()
    if not is_ours and found.st_uid != 0:
        raise WireKeyError(f"{file} belongs to another user, who can read it")
    if found.st_mode & (0o077 if is_ours else 0o037):
        raise WireKeyError(f"others can read {file}: `chmod 600` it, or 640 if it is root's")


def _check_folder(folder: Path) -> None:
    """Who may write there could let himself in."""
    if not folder.is_dir():
        raise WireKeyError(f"there is no folder {folder}: `vfastml keys wire` makes it")
    found = folder.stat()
    is_guarded = found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not (is_guarded or os.statvfs(folder).f_flag & os.ST_RDONLY):
        raise WireKeyError(f"others can write to {folder}: `chmod 700` it, or mount it read-only")


def _name(file: Path) -> str:
    return file.name.partition("-")[2].removesuffix(".key")
