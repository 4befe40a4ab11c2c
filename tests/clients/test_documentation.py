"""docs/clients.md: its code runs as it is written, and it names the versions that are tested."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.service import Service

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/clients.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), ids=lambda code: code.split()[1])
def test_python(service: Service, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = compile(code.replace("http://127.0.0.1:8080", service.url), "clients.md", "exec", dont_inherit=True)
    exec(program, {})
    assert "Paris" in capsys.readouterr().out


def pinned_versions() -> dict[str, str]:
    texts = [(ROOT / name).read_text() for name in ("requirements-dev.txt", "requirements-clients.txt")]
    texts += [(ROOT / "requirements-lm-eval.txt").read_text()]
    pins = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", "\n".join(texts), re.MULTILINE))
    node = json.loads((ROOT / "tests/clients/node/package.json").read_text())["dependencies"]
    return pins | {"openai-python": pins["openai"], "openai-node": node["openai"]}


def test_versions() -> None:
    pins = pinned_versions()
    rows = re.findall(r"^\| \[(.+?)\]\(#.+?\) \| (\S+) \|", PAGE, re.MULTILINE)
    assert len(rows) >= 7
    for name, version in rows:
        assert version == pins.get(name, pins.get(f"{name}-slim")), name
