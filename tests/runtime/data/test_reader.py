"""Lines that are rows, lines that are not, files that are no JSON Lines."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sftc.runtime.data.jsonrows import MOST_BYTES
from sftc.runtime.data.reader import digest_rows, read_lines
from sftc.runtime.data.rows import SHOWN, BadRows, RowError
from sftc.runtime.errors import UserError


def lines_of(path: Path) -> dict[int, dict[str, object] | str]:
    """Line number to row, or to the code of what is wrong."""
    read = read_lines(path, sha256=digest_rows(path, "data.train_data_path"))
    return {line.number: line.row.code if isinstance(line.row, RowError) else line.row for line in read}


def test_rows_keep_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"a": 1}\r\n\n   \n{"a": "é\u2028"}'.encode())
    assert lines_of(path) == {1: {"a": 1}, 4: {"a": "é\u2028"}}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"a": "\xff"}\n', "not-utf8"),
        (b"{'a': 1}\n", "not-json"),
        (b'{"a": NaN}\n', "not-json"),
        (b'{"a": 1} {"a": 2}\n', "not-json"),
        (b"[" * 100_000 + b"\n", "not-json"),
        (b"null\n", "not-an-object"),
        (b'"a"\n', "not-an-object"),
        (b'{"a": "\\ud83d"}\n', "lone-surrogate"),
        (b'{"a": "cut of', "truncated"),
    ],
)
def test_bad_lines(tmp_path: Path, line: bytes, code: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line)
    assert lines_of(path) == {1: {"a": 0}, 2: code}


def test_escaped_surrogate_pairs_are_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "\\ud83d\\ude42"}\n')
    assert lines_of(path) == {1: {"a": "🙂"}}


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b"\x1f\x8b\x08", b"PAR1"])
def test_files_of_another_kind(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(start)
    with pytest.raises(UserError) as refusal:
        digest_rows(path, "data.train_data_path")
    assert "`data.train_data_path`" in refusal.value.message
    assert refusal.value.help


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refusal:
        digest_rows(Path("data/rows.jsonl"), "data.train_data_path")
    assert "data/rows.jsonl" in refusal.value.message
    assert str(tmp_path) in refusal.value.message
    assert "SFTC_ROOT" in str(refusal.value.help)


def test_file_that_changes_while_it_is_read(write_rows: Callable[..., Path]) -> None:
    path = write_rows("rows.jsonl", [{"a": number} for number in range(10)])
    lines = read_lines(path, sha256=digest_rows(path, "data.train_data_path"))
    next(lines)
    with path.open("ab") as stream:
        stream.write(b'{"a": 10}\n')
    with pytest.raises(UserError, match="changed while it was read"):
        list(lines)


def test_report_shows_the_first_and_counts_all() -> None:
    bad = BadRows("rows.jsonl")
    for number in range(SHOWN + 5):
        bad.add(number + 1, RowError("not-json" if number % 2 else "no-column", "wrong"))
    report = bad.report().splitlines()
    assert report[0] == "rows.jsonl:1: no-column wrong"
    assert len(report) == SHOWN + 2
    assert report[-2:] == ["... and 5 more", "by reason: no-column 13, not-json 12"]


def test_lines_that_are_too_long_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    most = json.dumps({"a": "x" * (MOST_BYTES - 10)}).encode()
    assert len(most) == MOST_BYTES - 1
    path.write_bytes(b"\n".join([most, most + b" ", b" " * 50_000_000, b'{"a": 1}', b"[" * 50_000_000]))
    read = lines_of(path)
    assert isinstance(read.pop(1), dict)
    assert read == {2: "too-long", 3: "too-long", 4: {"a": 1}, 5: "too-long"}


def test_memory_is_bounded_by_the_longest_row_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as stream:
        for _ in range(4):
            stream.write(b"x" * 50_000_000 + b"\n")
    digest = digest_rows(path, "data.train_data_path")
    tracemalloc.start()
    (*_, last) = read_lines(path, sha256=digest)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(last.row, RowError)
    assert last.row.message.startswith("the row has 50,000,001 bytes")
    assert peak < 4 * MOST_BYTES


def test_bare_lists_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'[{"role": "user"}]\n')
    assert [line.row for line in read_lines(path, sha256=digest_rows(path, "key"))] == [[{"role": "user"}]]
