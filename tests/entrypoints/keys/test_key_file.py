"""What key files may say, and what is said of those that are wrong."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vfastml.entrypoints.keys.api_key import ApiKey
from vfastml.entrypoints.keys.key_file import KeyFileError, read_keys

A, B = "a" * 64, "B" * 64
SECRET = "swordfish"
ANN = f'[[key]]\nname = "ann"\nsha256 = "{A}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def keys_of(file: Path, text: str) -> list[ApiKey]:
    file.write_text(text)
    return list(read_keys(file))


def test_all_that_can_be_said_of_a_key(file: Path) -> None:
    text = f"""
    [[key]]
    name = "ann.of-team_1"
    sha256 = "{B}"
    admin = true
    weight = 2.5
    models = ["m", "org/m"]
    requests_per_minute = 60
    tokens_per_minute = 20000
    max_open = 8
    quota_tokens = 1000000
    quota_per = "day"
    """
    expected = ApiKey("ann.of-team_1", B, True, 2.5, ("m", "org/m"), 60, 20000, 8, 1000000, "day")
    assert keys_of(file, text) == [expected]
    assert expected.tenant().secret == bytes.fromhex(B)


def test_what_is_not_said_is_not_bounded(file: Path) -> None:
    assert keys_of(file, ANN) == [ApiKey("ann", A, False, 1.0, None, None, None, None, None, None)]


def test_defaults_are_for_keys_that_do_not_say(file: Path) -> None:
    defaults = '[defaults]\nmax_open = 3\nmodels = ["m"]\nquota_per = "day"\n'
    text = f'{ANN}max_open = 5\n{defaults}[[key]]\nname = "bob"\nsha256 = "{B}"\nquota_tokens = 9\n'
    ann, bob = keys_of(file, text)
    assert (ann.max_open, ann.models, ann.quota_tokens, ann.quota_per) == (5, ("m",), None, None)
    assert (bob.max_open, bob.models, bob.quota_tokens, bob.quota_per) == (3, ("m",), 9, "day")


def test_a_file_may_have_no_key(file: Path) -> None:
    assert keys_of(file, "# none yet\n") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{ANN}modles = ["m"]', "key 'ann' has the unknown field 'modles'"),
        (f"{ANN}[default]\nmax_open = 1", "the file has the unknown field 'default'"),
        (f"{ANN}[defaults]\nadmin = true", "[defaults] has the unknown field 'admin'"),
        (f'{ANN}[[key]]\nname = "ann"\nsha256 = "{B}"', "two keys have the name 'ann'"),
        (f'{ANN}[[key]]\nname = "bob"\nsha256 = "{A.upper()}"', "keys 'ann' and 'bob' have the same sha256"),
        (f'[[key]]\nname = "ann lee"\nsha256 = "{A}"', "key 'ann lee': 'name' must be"),
        (f'[[key]]\nname = "ann\\u001b"\nsha256 = "{A}"', "key number 1: 'name' must be"),
        (f'[[key]]\nsha256 = "{A}"', "key number 1 has no 'name'"),
        ('[[key]]\nname = "ann"', "key 'ann' has no 'sha256'"),
        (f'[[key]]\nname = "ann"\nsha256 = "{SECRET}"', "key 'ann': 'sha256' must be"),
        (f"{ANN}admin = 1", "'admin' must be true or false"),
        (f"{ANN}weight = 0", "'weight' must be"),
        (f"{ANN}weight = nan", "'weight' must be"),
        (f"{ANN}weight = inf", "'weight' must be"),
        (f"{ANN}weight = true", "'weight' must be"),
        (f'{ANN}models = "m"', "'models' must be"),
        (f"{ANN}models = []", "'models' must be"),
        (f"{ANN}models = [1]", "'models' must be"),
        (f"{ANN}requests_per_minute = 0", "'requests_per_minute' must be"),
        (f"{ANN}tokens_per_minute = 1.5", "'tokens_per_minute' must be"),
        (f"{ANN}max_open = true", "'max_open' must be"),
        (f"{ANN}requests_per_minute = {10**400}", "'requests_per_minute' must be"),
        (f'{ANN}quota_tokens = 5\nquota_per = "week"', "'quota_per' must be day or month or ever"),
        (f"{ANN}quota_tokens = 5", "'quota_tokens' needs 'quota_per'"),
        (f'{ANN}quota_per = "day"', "'quota_per' needs 'quota_tokens'"),
        ("key = 5", "a key begins with [[key]]"),
        ("defaults = 5", "defaults begin with [defaults]"),
        (f"{SECRET} = = 5", "it is not valid TOML in line 1"),
        (f'\n[defaults]\nmax_open = "{SECRET}', "it is not valid TOML at its end"),
        (f'{ANN}name = "{SECRET}"\n', "it is not valid TOML in line 4"),
        (f'{ANN}"{SECRET} (at line 7, column 7)" = = 5', "it is not valid TOML in line 4"),
        ("x = " + "[" * 100_000, "it is not valid TOML"),
    ],
)
def test_mistakes_are_named_and_secrets_are_not_shown(file: Path, text: str, expected: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        keys_of(file, text)
    message = str(caught.value)
    assert expected in message
    assert str(file) in message
    assert SECRET not in message
    assert message.isprintable()


def test_a_file_that_everybody_may_write_is_refused(file: Path) -> None:
    file.write_text(ANN)
    file.chmod(0o664)
    assert len(read_keys(file)) == 1
    file.chmod(0o666)
    with pytest.raises(KeyFileError, match="chmod o-w"):
        read_keys(file)


def test_a_file_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read: No such file"):
        read_keys(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(KeyFileError, match="it is not text"):
        read_keys(file)
    with pytest.raises(KeyFileError, match="cannot be read: Is a directory"):
        read_keys(tmp_path)
    with open(file, "wb") as large:
        os.truncate(large.fileno(), (16 << 20) + 1)
    with pytest.raises(KeyFileError, match="it is larger than"):
        read_keys(file)


def test_plain_files_have_a_key_or_its_digest_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    digest = hashlib.sha256(b"k1").hexdigest()
    file.write_text(f"# of the team\n  k1  \n\nsha256:{B}\nsha256:{digest.upper()}\n")
    assert [(key.name, key.sha256.lower()) for key in read_keys(file)] == [
        (f"key-{digest[:8]}", digest),
        ("key-bbbbbbbb", B.lower()),
    ]
    file.chmod(0o666)
    with pytest.raises(KeyFileError, match="chmod o-w"):
        read_keys(file)


def test_keys_that_others_can_read_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\nsha256:{B}\n")
    file.chmod(0o644)
    read_keys(file)
    assert caplog.messages == [], "a digest is no secret"
    file.write_text(f"{SECRET}\n")
    read_keys(file)
    [message] = caplog.messages
    assert f"every user of this machine may read the keys in {file}: take that away with chmod o-r" in message
    assert SECRET not in message
    file.chmod(0o640)
    read_keys(file)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("line", ["a b", "a,b", "sha256:abc", f"sha256:{SECRET}", "sha256:" + "g" * 64, "\x07"])
def test_bad_lines(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\nk1\n{line}\n")
    with pytest.raises(KeyFileError, match=": line 4: ") as caught:
        read_keys(file)
    assert line not in str(caught.value)


def test_a_digest_is_not_shown_with_its_key() -> None:
    assert A not in repr(ApiKey("ann", A))


def test_nothing_here_needs_a_gateways_packages() -> None:
    code = "import vfastml.entrypoints.keys.key_file, sys; print({'fastapi', 'starlette', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
