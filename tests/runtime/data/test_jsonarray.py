"""Files that are one JSON array: rows with their lines, whatever the window holds of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data import jsonarray
from sftc.runtime.data.reader import digest_rows, read_lines
from sftc.runtime.data.rows import RowError
from sftc.runtime.errors import UserError


@pytest.fixture(params=[1, 2, 7, 1 << 18], ids=lambda size: f"by {size}")
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonarray, "CHUNK", request.param)


def read(tmp_path: Path, content: str | bytes) -> list[tuple[int, Any]]:
    """Line and row, or the code of what is wrong with it."""
    path = tmp_path / "rows.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    lines = read_lines(path, sha256=digest_rows(path, "data.train_data_path"))
    return [(line.number, line.row.code if isinstance(line.row, RowError) else line.row) for line in lines]


@pytest.mark.usefixtures("chunk")
def test_rows_and_their_lines(tmp_path: Path) -> None:
    rows = [{"a": "é]🙂,\n"}, {"b": [1, {"c": None}]}, [{"role": "user"}], {}]
    for indent, lines in ((None, [1, 1, 1, 1]), (1, [2, 5, 13, 18])):
        for ascii in (True, False):
            text = json.dumps(rows, indent=indent, ensure_ascii=ascii)
            assert read(tmp_path, text) == list(zip(lines, rows, strict=True))
            assert read(tmp_path, "\r\n" + text.replace("\n", "\r\n") + "\n") == [
                (number + 1, row) for number, row in zip(lines, rows, strict=True)
            ]
    assert read(tmp_path, " [ \n ] ") == []


@pytest.mark.usefixtures("chunk")
def test_bad_rows_leave_the_others(tmp_path: Path) -> None:
    content = b'[{"a": 1},\n12345,\n{"a": NaN},\n{"a": "\xff"},\n{"a": "\\ud83d"},\n{"a": "\\ud83d\\ude42"}]'
    assert read(tmp_path, content) == [
        (1, {"a": 1}),
        (2, "not-an-object"),
        (3, "not-json"),
        (4, "not-utf8"),
        (5, "lone-surrogate"),
        (6, {"a": "🙂"}),
    ]


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ":1: not-json an array of rows is wanted; the file begins with nothing"),
        ('\n{"a": 1}\n{"a": 2}', ":2: not-json an array of rows is wanted; the file begins with `{`"),
        ('[{"a": 1},\n{"a": ', ":2: truncated the file ends in the middle"),
        ('[{"a": 1},\n{"a": "x', ":2: truncated"),
        ('[{"a": 1},\n', ":2: truncated"),
        ('[{"a": 1}\n', ":2: truncated"),
        ("[", ":1: truncated"),
        ('[{"a": 1}\n{"a": 2}]', ":2: not-json `,` or `]` is wanted after a row, not `{`"),
        ('[{"a": 1},\n]', ":2: not-json expecting value"),
        ('[{"a": 1},\n{"b": \n\'c\'}]', ":3: not-json expecting value"),
        ('[{"a": 1}]\n{"a": 2}', ":2: not-json nothing may follow the array, and `{` does"),
        ("[" * 100_000, ":1: not-json nested too deeply"),
    ],
)
def test_malformed_arrays_say_where(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        read(tmp_path, content)
    assert f"rows.json{words}" in refusal.value.message
    assert refusal.value.help


def test_rows_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonarray, "MOST_BYTES", 100)
    monkeypatch.setattr(jsonarray, "CHUNK", 150)
    long = {"a": "x" * 100}
    assert read(tmp_path, json.dumps([{}, long, {}])) == [(1, {}), (1, "too-long"), (1, {})]
    with pytest.raises(UserError, match=r"rows\.json:1: not-json a row has more than"):
        read(tmp_path, json.dumps([{}, {"a": "x" * 10_000}]))


def test_memory_is_bounded_by_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"a": "x" * 1000}] * 5000))
    longest = 0
    for line in read_lines(path, sha256=digest_rows(path, "key")):
        assert isinstance(line.row, dict)
        longest = max(longest, line.end)
        if line.number == 1 and longest < path.stat().st_size // 2:
            break
    # Half way through the rows, the rest of the file is not yet read.
    assert longest <= 2 * jsonarray.CHUNK
