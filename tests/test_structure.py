"""The walls of the house: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "vfastml").rglob("*.py"), *(ROOT / "prebuilt_apps").rglob("*.py")])

FLOORS = {
    "engine": {"errors", "utils"},
    "entrypoints": {"errors", "utils", "engine"},
    "media": {"errors"},
    "model_store": set(),
    "text_engine": {"errors", "engine"},
    "models_servers": {"errors", "utils", "engine", "text_engine", "model_store"},
    "utils": set(),
    "utils.api": {"engine", "entrypoints"},
}
"""Which parts of the package each part may import, beside itself."""
GATEWAY = ROOT / "vfastml" / "entrypoints"
ROOMS = {
    "admin": {"metrics"},
    "anthropic": {"openai"},
    "keys": set(),
    "ledger": {"keys"},
    "metrics": set(),
    "openai": {"keys"},
    "tracing": set(),
}
"""The same of the folders of the gateway; the modules beside them connect them."""


def part(module: str) -> str:
    """The floor. One module of `utils` is not at the bottom but on top of the gateway."""
    return "utils.api" if module.startswith("vfastml.utils.api") else module.split(".")[1]


def imported(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_one_way(floor: str) -> None:
    checked = 0
    for path in (ROOT / "vfastml" / floor.split(".")[0]).rglob("*.py"):
        if part(".".join(path.relative_to(ROOT).with_suffix("").parts)) == floor:
            own = {part(module) for module in imported(path) if module.startswith("vfastml.")}
            assert own <= FLOORS[floor] | {floor}, path
            checked += 1
    assert checked > 0


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_the_gateway(room: str) -> None:
    modules = [module for path in (GATEWAY / room).rglob("*.py") for module in imported(path)]
    within = {module.split(".")[2] for module in modules if module.startswith("vfastml.entrypoints.")}
    assert {name for name in within if (GATEWAY / name).is_dir()} <= ROOMS[room] | {room}


def test_each_room_of_the_gateway_has_walls() -> None:
    assert {path.name for path in GATEWAY.iterdir() if (path / "__init__.py").is_file()} == ROOMS.keys()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("vfastml.entrypoints.api_server", ["torch", "transformers", "sqlalchemy"]),
        ("prebuilt_apps.openai.api_server", ["torch", "transformers"]),
        ("prebuilt_apps.cli.usage", ["torch", "fastapi", "sqlalchemy"]),
        ("vfastml.entrypoints.ledger.usage", ["torch", "fastapi", "zmq"]),
        ("vfastml.entrypoints.ledger.ledger", ["torch", "fastapi"]),
        ("vfastml.engine.dispatch_engine", ["torch", "transformers", "fastapi"]),
        ("vfastml.text_engine.engine_loader", ["zmq", "fastapi"]),
        ("vfastml.models_servers.model_server_text_hf", ["fastapi", "uvicorn"]),
        ("vfastml.models_servers.one_shot_server", ["torch", "transformers", "fastapi"]),
        ("vfastml.llm", ["zmq", "fastapi", "uvicorn"]),
        ("vfastml.model_store", ["torch", "transformers", "zmq"]),
        ("vfastml", ["torch", "transformers", "zmq", "fastapi", "msgspec"]),
    ],
)
def test_what_a_fresh_interpreter_loads(module: str, absent: list[str]) -> None:
    code = f"import {module}, sys; print([name for name in {absent!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.strip() == "[]"


def test_no_import_inside_a_function() -> None:
    for path in SOURCES:
        if path == ROOT / "vfastml" / "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
                assert not inner or path.name in {"gguf_file.py", "one_shot_server.py"}, f"{path}: {node.name}"
