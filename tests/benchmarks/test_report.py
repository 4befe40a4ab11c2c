from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from tests.benchmarks.results import record, result, run

PNG = b"\x89PNG\r\n\x1a\n"
SETTINGS = {"endpoint": "chat", "input_tokens": 128, "output_tokens": 64, "range_ratio": 0.5}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two servers; the second is half as fast at c=1, failed once there, and was not measured at c=4."""
    fast = result("fast", [run([record()]), run([record(), record()], 4)], **SETTINGS)
    slow_record = record(e2e_s=1.2, chunks_s=[0.4, 0.6, 0.8, 1.0, 1.2])
    slow = result("slow", [run([slow_record, record(error="broke", e2e_s=0.1)])], **SETTINGS)
    for each in (fast, slow):
        each.save(tmp_path / f"{each.label}.json")
    return [str(tmp_path / "fast.json"), str(tmp_path / "slow.json")]


def test_side_by_side_with_ratios_to_the_first(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([*files, "--markdown"]) == 0
    shown = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.out.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "fast", "slow"]
    assert ["c=1  output tokens/s", "8.3", "4.2 2.00x"] in rows
    assert ["c=1  TTFT p50, ms", "200", "400 0.50x"] in rows
    assert ["c=1  TPOT p50, ms", "100.0", "200.0 0.50x"] in rows
    assert ["c=1  failed", "0 of 1", "1 of 2"] in rows
    assert ["c=4  output tokens/s", "16.7", "-"] in rows
    assert "slow: 1 of 2 requests FAILED: 1 x broke" in shown.err


def test_one_picture(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "new" / "compare.png"
    assert report.main([*files, "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(PNG)
    assert "fast" in capsys.readouterr().out


def test_labels_that_come_twice_get_a_number(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([files[0], files[0], "--markdown"]) == 0
    assert "|  | fast #1 | fast #2 |" in capsys.readouterr().out


def test_what_was_not_asked_alike_is_said(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    result("other", [run([record()])], **(SETTINGS | {"input_tokens": 8})).save(other)
    assert report.main([files[0], str(other), "--markdown"]) == 0
    assert "Not asked alike, input_tokens: fast 128, other 8" in capsys.readouterr().err


def test_flags_are_said(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = result("other", [run([record()])], **SETTINGS)
    other.server["flags"] = "--quantization int8"
    other.save(tmp_path / "other.json")
    assert report.main([files[0], str(tmp_path / "other.json"), "--markdown"]) == 0
    assert "other: started with --quantization int8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("{}", "is not a result of a benchmark"), ("no", "is not a result of a benchmark")],
)
def test_a_file_that_is_no_result(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    assert report.main([str(path)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_result_of_another_format(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(files[0])
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    assert report.main(files) == 1
    assert "has format 99" in capsys.readouterr().err
