"""`vfastml keys`: what it writes, prints and refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prebuilt_apps.cli import keys_list
from prebuilt_apps.cli.__main__ import main
from prebuilt_apps.cli.key_document import with_key, without_key
from vfastml.entrypoints.keys.api_key import digest_of
from vfastml.entrypoints.keys.key_file import read_keys

A, B = "a" * 64, "b" * 64


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "keys.toml"
    monkeypatch.setenv("VFASTML_API_KEY_FILE", str(file))
    return file


def run(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Status, stdout, stderr."""
    try:
        status = main(["keys", *arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, *capsys.readouterr()


def test_a_new_key_is_printed_once_and_kept_nowhere(file: Path, capsys: Any) -> None:
    status, out, err = run(capsys, "new", "ann")
    assert status == 0
    assert re.fullmatch(r"vfm-[A-Za-z0-9_-]{43}\n", out)
    [key] = read_keys(file)
    assert (key.name, key.sha256) == ("ann", digest_of(out.strip().encode()).hex())
    assert out.strip() not in file.read_text() + err
    assert file.stat().st_mode & 0o777 == 0o600
    assert run(capsys, "new", "bob")[1] != out


def test_all_limits(file: Path, capsys: Any) -> None:
    limits = ["--requests-per-minute", "60", "--tokens-per-minute", "2000", "--max-open", "8", "--weight", "2.5"]
    limits += ["--quota-tokens", "10000", "--quota-per", "month", "--models", "a, org/b", "--admin"]
    assert run(capsys, "new", "ann", *limits)[0] == 0
    [key] = read_keys(file)
    assert (key.requests_per_minute, key.tokens_per_minute, key.max_open, key.weight) == (60, 2000, 8, 2.5)
    assert (key.quota_tokens, key.quota_per, key.models, key.admin) == (10000, "month", ("a", "org/b"), True)
    assert run(capsys, "list")[1].splitlines()[1:] == ["ann\tyes\t2.5\t60\t2000\t8\t10000 per month\ta, org/b"]


def test_keys_are_listed_without_secrets(file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--ledger" not in run(capsys, "new", "ann")[2]
    assert "its quota needs --ledger" in run(capsys, "new", "bob", "--quota-tokens", "5", "--quota-per", "ever")[2]
    assert run(capsys, "list")[1] == (
        "NAME\tADMIN\tWEIGHT\tREQ/MIN\tTOK/MIN\tOPEN\tQUOTA\tMODELS\n"
        "ann\tno\t1\t-\t-\t-\t-\tall\n"
        "bob\tno\t1\t-\t-\t-\t5 in all\tall\n"
    )
    keys_list._print_table(read_keys(file))
    table = capsys.readouterr().out
    assert table.split()[:3] == ["NAME", "ADMIN", "WEIGHT"]
    assert not any(key.sha256[:16] in table for key in read_keys(file))


def test_numbers_of_a_table_stay_whole(file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run(capsys, "new", "ann-of-the-lab", "--requests-per-minute", "1000000", "--models", "m" * 100)
    keys_list._print_table(read_keys(file))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["ann-of-the-lab", "no", "1", "1000000"]
    assert "".join(line.split()[-1] for line in lines[1:]) == "m" * 100


def test_a_revoked_key_is_gone(file: Path, capsys: Any) -> None:
    for name in ("ann", "bob"):
        run(capsys, "new", name)
    assert run(capsys, "revoke", "ann")[:2] == (0, "")
    assert [key.name for key in read_keys(file)] == ["bob"]
    status, _, err = run(capsys, "revoke", "ann")
    assert (status, "no key with the name 'ann'" in err) == (1, True)
    status, _, err = run(capsys, "revoke", "bob")
    assert (status, "a gateway does not start with such a file" in err) == (0, True)
    assert read_keys(file) == ()


def test_nothing_is_revoked_where_there_is_no_file(file: Path, capsys: Any) -> None:
    status, _, err = run(capsys, "revoke", "ann")
    assert status == 1
    assert f"the key file {file} cannot be read: No such file or directory" in err
    assert list(file.parent.iterdir()) == [], "not even a lock is left"


def test_check(file: Path, capsys: Any) -> None:
    assert run(capsys, "check")[0] == 1
    run(capsys, "new", "ann")
    status, _, err = run(capsys, "check")
    assert (status, err) == (0, f"vfastml keys check: {file} is right: it has 1 key\n")
    file.write_text(file.read_text() + "modles = []\n")
    status, _, err = run(capsys, "check")
    assert status == 1
    assert "key 'ann' has the unknown field 'modles'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "# none\n", "[defaults]\nmax_open = 4\n"])
def test_a_file_without_a_key_is_not_right(file: Path, capsys: Any, text: str) -> None:
    file.write_text(text)
    status, _, err = run(capsys, "check")
    assert status == 1
    assert err.startswith(f"vfastml keys check: {file} has no key: a gateway does not start with such a file")


def test_check_warns_of_keys_that_others_can_read(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "keys"
    file.write_text("k1\n")
    file.chmod(0o644)
    status, _, err = run(capsys, "check", "--file", str(file))
    assert (status, err.count("chmod o-r"), "is right" in err) == (0, 1, True)
    file.chmod(0o640)
    assert "chmod" not in run(capsys, "check", "--file", str(file))[2]


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ([], 2, "subcommands:"),
        (["nwe"], 2, "unknown subcommand 'nwe'; did you mean new?"),
        (["--nwe"], 2, "unknown flag --nwe"),
        (["new"], 2, "NAME"),
        (["new", "ann lee"], 2, "'name' must be"),
        (["new", "ann", "--max-open", "0"], 2, "at least 1"),
        (["new", "ann", "--weight", "nan"], 2, "a weight is"),
        (["new", "ann", "--models", "a,,b"], 2, "commas between"),
        (["new", "ann", "--quota-tokens", "5"], 2, "'quota_tokens' needs 'quota_per'"),
        (["new", "ann", "--quota-per", "day"], 2, "'quota_per' needs 'quota_tokens'"),
        (["new", "ann", "--file", "keys.txt"], 1, "must end in .toml"),
        (["new", "ann", "--file", "/nowhere/keys.toml"], 1, "there is no such folder"),
        (["list", "--file", "/nowhere/keys.toml"], 1, "cannot be read"),
    ],
)
def test_mistakes(file: Path, capsys: Any, arguments: list[str], status: int, expected: str) -> None:
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (status, "")
    assert expected in err
    assert not file.exists()


def test_a_name_is_given_once_and_a_wrong_file_is_left_alone(file: Path, capsys: Any) -> None:
    run(capsys, "new", "ann")
    before = file.read_text()
    status, out, err = run(capsys, "new", "ann")
    assert (status, out, "already" in err) == (1, "", True)
    assert file.read_text() == before
    file.write_text("key = = 5")
    status, out, err = run(capsys, "new", "bob")
    assert (status, out, file.read_text()) == (1, "", "key = = 5")
    assert list(file.parent.glob(".keys*")) == [], "no half file is left"


def test_two_calls_lose_nothing(file: Path) -> None:
    command = [sys.executable, "-m", "prebuilt_apps.cli", "keys", "new", "--file", str(file)]
    calls = [subprocess.Popen([*command, f"k{n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for n in range(4)]
    printed = [call.communicate()[0].decode().strip() for call in calls]
    kept = {key.name: key.sha256 for key in read_keys(file)}
    assert kept == {f"k{n}": digest_of(key.encode()).hex() for n, key in enumerate(printed)}


def test_a_link_and_a_mode_stay(file: Path, tmp_path: Path, capsys: Any) -> None:
    real = tmp_path / "real.toml"
    real.write_text("# ours\n")
    real.chmod(0o640)
    file.symlink_to(real)
    assert run(capsys, "new", "ann")[0] == 0
    assert file.is_symlink()
    assert real.read_text().startswith("# ours\n")
    assert real.stat().st_mode & 0o777 == 0o640


TEAM = f"""# the team's keys

# ann, of the lab
[[key]]
name = "ann"    # since May
sha256 = "{A}"

# bob
[[key]]
name = "bob"
# his laptop's
sha256 = "{B}"

[defaults]  # for all
max_open = 4
# the end
"""


def test_comments_and_all_else_stay() -> None:
    added = with_key(TEAM, {"name": "carl", "sha256": "c" * 64, "models": ["m"]})
    assert added.startswith(TEAM.rstrip())
    assert without_key(added, "carl").rstrip() == TEAM.rstrip()
    assert without_key(TEAM, "ann") == TEAM.replace(f'[[key]]\nname = "ann"    # since May\nsha256 = "{A}"\n\n', "")
    block = f'[[key]]\nname = "bob"\n# his laptop\'s\nsha256 = "{B}"\n\n'
    assert without_key(TEAM, "bob") == TEAM.replace(block, "")


@pytest.mark.parametrize(
    "text",
    [
        f'key = [{{name = "ann", sha256 = "{A}"}}, {{name = "bob", sha256 = "{B}"}}]\n',
        f'[[key]]\nname = "ann"\nsha256 = "{A}"\nmodels = ["""\n[[key]]\n"""]\n',
        f'[[key]]\nname = "ann"\nsha256 = "{A}"\nmodels = ["""\n[x]\n"""]\n',
    ],
)
def test_what_cannot_be_changed_surely_is_not(text: str) -> None:
    with pytest.raises(ValueError, match="change it by hand"):
        without_key(text, "ann")


def test_an_inline_list_is_not_added_to() -> None:
    with pytest.raises(ValueError, match=r"by hand"):
        with_key(f'key = [{{name = "ann", sha256 = "{A}"}}]\n', {"name": "bob", "sha256": B})
