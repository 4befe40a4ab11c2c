"""The parts of the package that need more than its base."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


def import_part(module: str, *, extra: str, prog: str, needs: tuple[str, ...] = ()) -> ModuleType:
    """The module, imported after what it `needs`. Leaves by SystemExit 1, with one line that names the extra to
    install, when a package is missing or broken."""
    try:
        for name in needs:
            import_module(name)
        return import_module(module)
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        if package in ("vfastml", "prebuilt_apps"):
            raise
        sys.exit(f"{prog}: {package} cannot be loaded: install vfastml[{extra}]")
