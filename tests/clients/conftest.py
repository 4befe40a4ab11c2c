"""One service for all clients. They live in an environment of their own, and it in that of the product."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.service import Service, running

PRODUCT = Path(__file__).parents[2] / ".venv/bin/python"

# The product's own environment has no clients: `make test` passes by, `make test-clients` has them.
collect_ignore_glob = [] if find_spec("langchain_openai") else ["test_*.py"]

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it looks for newer prices on the web


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--service-python", default=PRODUCT, help="the interpreter that has the product")


@pytest.fixture(scope="session")
def service(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The built-in model, in float32: so a text does not depend on what the prefix cache has."""
    arguments = ["--dtype", "float32", "--kv-cache-memory", "300MB"]
    python = pytestconfig.getoption("--service-python", default=PRODUCT)
    with running(Service(tmp_path_factory.mktemp("clients"), arguments, python=python)) as service:
        yield service
