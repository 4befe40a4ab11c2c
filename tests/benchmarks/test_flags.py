from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from benchmarks import compare, engine, gateway, hf_generate, kernels, perplexity, report, serve
from benchmarks.flags import recorded


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--gguf", "/a b/m.gguf"], ["--gguf", "m.gguf"]),
        (["--gguf=/a/m.gguf"], ["--gguf=m.gguf"]),
        (["--model-uri", "file:///a/m"], ["--model-uri", "m"]),
        (["--output=~/results"], ["--output=results"]),
        (["--variant=x=--gguf /a/p --batch 1"], ["--variant=x=--gguf p --batch 1"]),
        (["--variant", "x=--folder='/a/b c' -t ~me/d"], ["--variant", "x=--folder='b c' -t d"]),
        (
            ["--api-key", "/s", "--api-key=s", "x=--api-key s -t"],
            ["--api-key", "...", "--api-key=...", "x=--api-key ... -t"],
        ),
        (["--url", "http://h:1/v1", "--output", "a/b"], ["--url", "http://h:1/v1", "--output", "a/b"]),
        (["--model-uri", "builtin:m", "--batch", "1,2"], ["--model-uri", "builtin:m", "--batch", "1,2"]),
    ],
)
def test_what_of_a_command_line_is_stored(arguments: list[str], shown: list[str]) -> None:
    assert recorded(arguments) == shown


@pytest.mark.parametrize("program", [compare, engine, gateway, hf_generate, kernels, perplexity, report, serve])
def test_help(program: object, capsys: pytest.CaptureFixture[str]) -> None:
    main: Callable[[Sequence[str]], int] = program.main  # type: ignore[attr-defined]
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "usage: python -m benchmarks." in capsys.readouterr().out
