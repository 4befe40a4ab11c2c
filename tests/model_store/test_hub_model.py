from __future__ import annotations

import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vfastml.model_store import ModelStoreError, hub, resolve_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHOLE = ("config.json", "model.safetensors", "tokenizer.json")


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


class FakeHub:
    """Stands for snapshot_download: what is cached, what a download brings, and what was asked."""

    def __init__(self, cached: Path | None, download: Path | Exception) -> None:
        self.cached = cached
        self.download = download
        self.asked: list[dict[str, Any]] = []
        self.revisions: list[str | None] = []

    def __call__(
        self, hub_id: str, *, local_files_only: bool = False, revision: str | None = None, **asked: Any
    ) -> str:
        self.revisions.append(revision)
        if local_files_only:
            if self.cached is None:
                raise LocalEntryNotFoundError("not cached")
            return str(self.cached)
        self.asked.append(asked)
        if isinstance(self.download, Exception):
            raise self.download
        return str(self.download)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return fill(tmp_path / "whole", *WHOLE)


def use(monkeypatch: pytest.MonkeyPatch, fake: FakeHub) -> FakeHub:
    monkeypatch.setattr(hub, "snapshot_download", fake)
    return fake


@pytest.mark.parametrize(
    ("argument", "access", "plain", "used"),
    [
        ("a", "b", "c", "a"),
        (None, "b", "c", "b"),
        (None, None, "c", "c"),
        (None, "", "c", "c"),
        (None, None, None, None),
    ],
)
def test_the_token_of_the_argument_goes_first(
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    argument: str | None,
    access: str | None,
    plain: str | None,
    used: str | None,
) -> None:
    for name, value in (("HF_ACCESS_TOKEN", access), ("HF_TOKEN", plain)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    fake = use(monkeypatch, FakeHub(None, whole))
    assert resolve_model("org/name", token=argument).folder == whole
    assert fake.asked[0]["token"] == used


@pytest.mark.rule("S9")
def test_neither_code_nor_pickles_are_downloaded(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeHub(None, whole))
    resolve_model("org/name")
    files = [*WHOLE, "model-00001-of-00002.safetensors", "chat_template.jinja", "merges.txt", "tokenizer.model"]
    refused = ["modeling_x.py", "pytorch_model.bin", "x.pt", "x.gguf", "original/model.safetensors", "model.onnx"]
    patterns = fake.asked[0]["allow_patterns"]
    assert [name for name in files + refused if any(fnmatch(name, pattern) for pattern in patterns)] == files


@pytest.mark.rule("S9")
def test_a_revision_is_looked_for_in_the_cache_and_on_the_hub(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeHub(None, whole))
    resolve_model("org/name", revision="v2")
    resolve_model("org/name")
    assert fake.revisions == ["v2", "v2", None, None]


@pytest.mark.parametrize("uri", ["builtin:smollm2-135m-instruct", "./model", "./model.gguf"])
def test_what_is_not_on_a_hub_has_no_revision(uri: str) -> None:
    with pytest.raises(ModelStoreError, match="has no revision"):
        resolve_model(uri, revision="main")


def test_a_whole_cached_model_is_used_without_asking(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeHub(whole, AssertionError("asked the hub")))
    phases: list[str] = []
    stored = resolve_model("org/name", progress=lambda phase, fraction: phases.append(phase))
    assert (stored.folder, stored.model_id, phases, fake.asked) == (whole, "org/name", [], [])


@pytest.mark.parametrize("missing", WHOLE)
def test_a_partial_snapshot_is_completed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    partial = fill(tmp_path / "partial", *[name for name in WHOLE if name != missing])
    use(monkeypatch, FakeHub(partial, whole))
    phases: list[str] = []
    assert resolve_model("org/name", progress=lambda phase, fraction: phases.append(phase)).folder == whole
    assert phases == ["downloading org/name"]


def test_weights_that_are_not_wanted_are_neither_downloaded_nor_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = fill(tmp_path / "bare", "config.json", "tokenizer.json")
    fake = use(monkeypatch, FakeHub(None, bare))
    assert resolve_model("org/name", with_weights=False).folder == bare
    assert not any(fnmatch("model.safetensors", pattern) for pattern in fake.asked[0]["allow_patterns"])
    use(monkeypatch, FakeHub(bare, AssertionError("asked the hub")))
    assert resolve_model("org/name", with_weights=False).folder == bare


@pytest.mark.rule("S9")
def test_a_model_of_pickles_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeHub(None, fill(tmp_path / "pickles", "config.json", "tokenizer.json")))
    with pytest.raises(ModelStoreError, match=r"org/name lacks \*.safetensors"):
        resolve_model("org/name")


def _http_error(cls: type[Exception]) -> Exception:
    error = cls.__new__(cls)
    error.args = ("from the hub",)
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (_http_error(GatedRepoError), "org/name is gated: accept its terms"),
        (_http_error(RepositoryNotFoundError), "no model org/name, or the token may not see it"),
        (_http_error(RevisionNotFoundError), "org/name has no such revision on the hub"),
        (LocalEntryNotFoundError("no"), "org/name is not in the local cache and the hub cannot be reached"),
        (RuntimeError("odd"), r"org/name could not be downloaded from the hub \(odd\)"),
    ],
)
def test_each_failure_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    use(monkeypatch, FakeHub(None, error))
    with pytest.raises(ModelStoreError, match=said):
        resolve_model("org/name")


def test_a_folder_of_that_name_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "org" / "name", *WHOLE)
    monkeypatch.chdir(tmp_path)
    use(monkeypatch, FakeHub(None, LocalEntryNotFoundError("no")))
    with pytest.raises(ModelStoreError, match=r"write \./org/name"):
        resolve_model("org/name")


def resolve_offline(home: Path, uri: str, revision: str = "") -> str:
    program = (
        "import sys\n"
        "from vfastml.model_store import ModelStoreError, resolve_model\n"
        "try:\n    print(resolve_model(sys.argv[1], revision=sys.argv[2] or None).folder)\n"
        "except ModelStoreError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", program, uri, revision]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_the_hubs_own_cache_serves_an_offline_machine(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    snapshot = fill(repository / "snapshots" / COMMIT, *WHOLE)
    fill(repository / "refs")
    (repository / "refs" / "main").write_text(COMMIT)
    assert resolve_offline(tmp_path, "org/name") == str(snapshot)
    assert (
        resolve_offline(tmp_path, "org/name", "main") == resolve_offline(tmp_path, "org/name", COMMIT) == str(snapshot)
    )
    assert "org/name is not in the local cache" in resolve_offline(tmp_path, "org/name", "v2")
    assert "org/other is not in the local cache" in resolve_offline(tmp_path, "org/other")
