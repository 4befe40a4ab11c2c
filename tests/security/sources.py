"""The project's own code as it is written, for rules that no line of it may break."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = sorted(path for part in ("vfastml", "prebuilt_apps") for path in (ROOT / part).rglob("*.py"))
WRITTEN_FOR_USERS = [*PRODUCT, *sorted((ROOT / "examples").rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules_of(found: ast.AST) -> Iterator[str]:
    """Every module that an import names, and `module.name` for what is imported from it."""
    for node in ast.walk(found):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls_of(found: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call, with what is called as it is written: `torch.load`, `eval`."""
    for node in ast.walk(found):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def words_of(found: ast.AST) -> Iterator[str]:
    """Each text in it."""
    for node in ast.walk(found):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
