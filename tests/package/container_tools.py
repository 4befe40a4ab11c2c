"""buildah and podman in a folder of their own, without a registry, a daemon or a network of their own."""

from __future__ import annotations

import configparser
import io
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.package.environment import pip, run

TOOLS = ("buildah", "podman", "runc", "mmdebstrap")

_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

_LOCKED_DOWN = [
    "--network=host",
    "--no-healthcheck",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--user=10001",
    "--pids-limit=256",
]


def why_not() -> str | None:
    """What is missing to build and run images here."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return None if os.geteuid() == 0 else "images are built without a daemon, which takes root"


def pip_settings() -> tuple[str, set[Path]]:
    """The user's own pip configuration as one file, and the local folders that it names."""
    wanted = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert")
    found: dict[str, str] = {}
    for line in pip("config", "list").splitlines():
        key, _, value = line.partition("=")
        name = re.split(r"[.:]", key)[-1]
        if name in wanted:
            found.setdefault(name, value.strip("'"))
    config, text = configparser.ConfigParser(interpolation=None), io.StringIO()
    config["global"] = found
    config.write(text)
    paths = [Path(word.removeprefix("file://")) for value in found.values() for word in value.split()]
    return text.getvalue(), {_folder_to_mount(path) for path in paths if path.is_absolute()}


def _folder_to_mount(path: Path) -> Path:
    # The pages of a local index lie in `simple`, and link to files beside it.
    return path.parent if path.is_file() or path.name == "simple" else path


class ContainerTools:
    """Images and containers in `folder`; `close` ends and removes them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "containers.conf").write_text(_CONF)
        settings, self._local_folders = pip_settings()
        (folder / "pip.conf").write_text(settings)
        # proxies and the like; where the packages are is in the base
        (folder / "apt.conf").write_text(run("apt-config", "dump", "Acquire"))
        # STORAGE_DRIVER=vfs, slow and large, where overlays cannot be mounted.
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        storage = [f"--storage-driver={driver}", f"--root={folder}/storage", f"--runroot={folder}/run"]
        self._buildah = ["buildah", *storage]
        self._podman = ["podman", *storage, f"--tmpdir={folder}/tmp", f"--runtime={shutil.which('runc')}"]
        self._environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}

    def make_base(self, tag: str) -> None:
        """A small Debian with Python, from Debian's own packages."""
        context = self.folder / "base"
        context.mkdir()
        packages = "--include=python3,python3-venv,ca-certificates"
        run("mmdebstrap", "--quiet", "--variant=minbase", packages, "bookworm", context / "rootfs.tar", timeout=900)
        (context / "Dockerfile").write_text("FROM scratch\nADD rootfs.tar /\n")
        self._build(tag, context, [])
        shutil.rmtree(context)

    def build(self, tag: str, tree: Path, dockerfile: str, base: str) -> None:
        """One of our images, with the user's pip and apt settings for the time of the build."""
        mounts = [f"--volume={path}:{path}:ro" for path in self._local_folders]
        mounts += [f"--volume={self.folder}/apt.conf:/etc/apt/apt.conf.d/99user:ro"]
        secret = f"--secret=id=pip.conf,src={self.folder}/pip.conf"
        self._build(tag, tree, [f"--file={tree / dockerfile}", f"--build-arg=BASE={base}", secret, *mounts])

    def _build(self, tag: str, context: Path, arguments: list[str]) -> None:
        how = ["--isolation=chroot", "--network=host", "--pull-never", "--format=docker", f"--tag={tag}"]
        run(*self._buildah, "bud", *how, *arguments, context, timeout=1500)

    def podman(self, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """One podman command, to its end; output and errors come together in `stdout`."""
        return subprocess.run(
            [*self._podman, *map(str, arguments)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run_to_end(self, image: str, *arguments: object, options: list[str] | None = None) -> tuple[int, str]:
        """Exit status and output of a container that ends by itself."""
        done = self.podman("run", "--rm", *_LOCKED_DOWN, *(options or []), image, *arguments)
        return done.returncode, done.stdout

    def start(self, name: str, image: str, *arguments: object, options: list[str] | None = None) -> None:
        """A container in the background. Raises AssertionError if it cannot be started."""
        done = self.podman(
            "run", "--detach", "--replace", "--name", name, *_LOCKED_DOWN, *(options or []), image, *arguments
        )
        assert done.returncode == 0, done.stdout

    def stop(self, name: str) -> int:
        """The exit status after SIGTERM; 137 if it took longer than 20 s. The container is removed."""
        self.podman("stop", "--time", 20, name)
        status = int(self.podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout)
        self.podman("rm", "--force", name)
        return status

    def close(self) -> None:
        """Leaves nothing behind."""
        self.podman("rm", "--all", "--force")
        self.podman("rmi", "--all", "--force")
        shutil.rmtree(self.folder, ignore_errors=True)
