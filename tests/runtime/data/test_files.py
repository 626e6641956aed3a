"""Kinds of files: gzip, parquet, directories, names that say something else than the content."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data import parquet
from sftc.runtime.data.prepare import prepare
from sftc.runtime.data.reader import digest_rows, read_lines, size_of
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.settings import DataSettings
from sftc.runtime.errors import UserError

KEY = "data.train_data_path"
ROWS = [{"a": number} for number in range(3)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)

type Settings = Callable[..., DataSettings]
type Pair = Callable[[str, str], dict[str, Any]]


def rows_of(path: Path) -> list[Any]:
    return [line.row for line in read_lines(path, sha256=digest_rows(path, KEY))]


def refused(path: Path) -> str:
    with pytest.raises(UserError) as refusal:
        rows_of(path)
    assert refusal.value.help
    return str(refusal.value)


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_gzip(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "rows.jsonl.gz", gzip.compress(LINES))) == ROWS
    assert rows_of(written(tmp_path / "rows.JSON.gz", gzip.compress(json.dumps(ROWS).encode()))) == ROWS
    # Files of several members are what `cat a.gz b.gz` makes.
    assert rows_of(written(tmp_path / "rows.jsonl.gz", gzip.compress(LINES) * 2)) == ROWS * 2


@pytest.mark.parametrize("cut", [3, 15, 30, -1])
def test_truncated_gzip(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "rows.jsonl.gz", gzip.compress(LINES)[:cut])
    assert f"`{path}` is cut off" in refused(path)


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(LINES)
    for content in (whole[:-8] + bytes(8), whole[:10] + b"\xff" * 20, LINES, whole + b"more"):
        path = written(tmp_path / "rows.jsonl.gz", content)
        assert f"`{path}` is damaged, or no gzip file" in refused(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.txt"])
@pytest.mark.parametrize(
    ("start", "words"),
    [
        # A time in the header would give the test another name in every process that collects it.
        (gzip.compress(LINES, mtime=0), "is compressed with gzip\nhelp: let its name say so: end it in `.gz`"),
        (b"PAR1", "is a parquet file"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
        ("{}".encode("utf-16"), "is UTF-16"),
    ],
)
def test_content_that_is_not_what_the_name_says(tmp_path: Path, name: str, start: bytes, words: str) -> None:
    path = written(tmp_path / name, start)
    assert f"`{KEY}`: `{path}` {words}" in refused(path)
    packed = written(tmp_path / f"{Path(name).stem}.jsonl.gz", gzip.compress(start))
    assert f"`{packed}`, unpacked, {words}" in refused(packed)


def test_directory(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    for name in ("c.jsonl", "a.jsonl", "b.jsonl", "_SUCCESS", ".hidden"):
        written(folder / name, json.dumps({"in": name}).encode())
    assert rows_of(folder) == [{"in": "a.jsonl"}, {"in": "b.jsonl"}, {"in": "c.jsonl"}]
    lines = list(read_lines(folder, sha256=digest_rows(folder, KEY)))
    assert [(line.file, line.number) for line in lines] == [(folder / f"{name}.jsonl", 1) for name in "abc"]
    assert lines[-1].end == size_of(folder) == sum(path.stat().st_size for path in folder.glob("*.jsonl"))


def test_directories_that_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    assert "there is no file of rows in the directory" in refused(folder)
    written(folder / "a.jsonl", LINES)
    for name in ("b.json", "b.jsonl.gz", "b.parquet"):
        other = written(folder / name, b"")
        assert f"holds files of two kinds, `a.jsonl` and `{name}`" in refused(folder)
        other.unlink()
    other = written(folder / "README.md", b"")
    assert f"`{other}` is no file of rows by its name" in refused(folder)
    other.unlink()
    (folder / "more").mkdir()
    assert f"`{folder / 'more'}` is a directory" in refused(folder)


def test_digests_tell_what_is_read(tmp_path: Path) -> None:
    """The same bytes are one row on a line and two in an array; the order of files is that of the rows."""
    content = b'[{"role": "user"}, {"role": "assistant"}]'
    line, array = written(tmp_path / "a.jsonl", content), written(tmp_path / "a.json", content)
    assert (len(rows_of(line)), len(rows_of(array))) == (1, 2)
    packed = written(tmp_path / "a.jsonl.gz", gzip.compress(content))
    same = written(tmp_path / "a.json.gz", packed.read_bytes())
    assert len({digest_rows(path, KEY) for path in (line, array, packed, same)}) == 4
    folders = []
    for name, order in (("one", "ab"), ("two", "ba"), ("three", "ab")):
        folders.append(tmp_path / name)
        for file, letter in zip(("1.jsonl", "2.jsonl"), order, strict=True):
            written(folders[-1] / file, json.dumps({"a": letter}).encode())
    one, two, three = (digest_rows(folder, KEY) for folder in folders)
    assert one == three != two


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(LINES)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _append(folder / "1.jsonl"),
        lambda folder: _append(folder / "2.jsonl"),
        lambda folder: (folder / "2.jsonl").rename(folder / "3.jsonl"),
        lambda folder: written(folder / "0.jsonl", LINES),
    ],
    ids=["the file that is read", "the next file", "another name", "one more file"],
)
def test_directory_that_changes_while_it_is_read(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = tmp_path / "rows"
    for name in ("1.jsonl", "2.jsonl"):
        written(folder / name, LINES)
    lines = read_lines(folder, sha256=digest_rows(folder, KEY))
    next(lines)
    change(folder)
    with pytest.raises(UserError, match=r"changed while it was read|2.jsonl` cannot be read"):
        list(lines)


def test_bad_rows_of_a_directory_are_reported_by_file(settings: Settings, pair: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    good = json.dumps(pair("a", "b")).encode()
    written(folder / "a.jsonl", good + b"\n{\n")
    written(folder / "b.jsonl", good + b"\n" + good + b'\n{"text": "c"}\n')
    with pytest.raises(UserError) as refusal:
        prepare(settings(train_data_path=folder))
    assert f"2 of 5 rows of `{folder}` cannot be used" in refusal.value.message
    assert f"{folder}/a.jsonl:2: not-json" in refusal.value.message
    assert f"{folder}/b.jsonl:3: no-column" in refusal.value.message
    heard: list[tuple[int, int, int]] = []
    prepare(settings(train_data_path=folder, on_bad_row="skip"), lambda *numbers: heard.append(numbers))
    assert heard[-1] == (size_of(folder), size_of(folder), 5)


def test_overlong_rows_of_a_directory_are_reported_by_file(settings: Settings, pair: Pair, tmp_path: Path) -> None:
    written(tmp_path / "rows" / "a.jsonl", json.dumps(pair("a" * 100, "b")).encode())
    with pytest.raises(UserError, match=r"rows/a\.jsonl:1: overlong"):
        prepare(settings(train_data_path=tmp_path / "rows"))


def test_every_kind_is_prepared_alike(settings: Settings, pair: Pair, tmp_path: Path) -> None:
    rows = [pair("a", "b"), pair("c", "d")]
    lines = b"\n".join(json.dumps(row).encode() for row in rows)
    bare = b"\n".join(json.dumps(row["messages"]).encode() for row in rows)
    prepared = []
    for name, content in (
        ("a.jsonl", lines),
        ("a.jsonl.gz", gzip.compress(lines, mtime=0)),
        ("a.json", json.dumps(rows, indent=2).encode()),
        ("bare.jsonl", bare),
    ):
        done = prepare(settings(train_data_path=written(tmp_path / name, content)))
        prepared.append([(done.store / f"train.{kind}.bin").read_bytes() for kind in ("tokens", "mask")])
    assert prepared == [prepared[0]] * 4


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    path = written(tmp_path / "rows.parquet", b"PAR1")
    assert "sftc[parquet]" in refused(path)


class TestParquet:
    """With pyarrow."""

    @pytest.fixture(autouse=True)
    def pyarrow(self) -> Any:
        return pytest.importorskip("pyarrow.parquet", reason="pyarrow, the extra `parquet`, is not installed")

    def written(self, path: Path, rows: list[Any], **options: Any) -> Path:
        import pyarrow
        import pyarrow.parquet

        path.parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
        return path

    def test_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "BATCH_ROWS", 4)
        rows = [{"messages": [{"role": "user", "content": f"é{number}"}]} for number in range(11)]
        path = self.written(tmp_path / "rows.parquet", rows, row_group_size=5)
        lines = list(read_lines(path, sha256=digest_rows(path, KEY)))
        assert [line.row for line in lines] == rows
        assert [line.number for line in lines] == list(range(1, 12))
        assert lines[-1].end == path.stat().st_size

    def test_prepared_like_json_lines(self, settings: Settings, pair: Pair, tmp_path: Path) -> None:
        rows = [pair("a", "b"), {"messages": [*pair("c", "d")["messages"], {"role": "user", "content": "e", "x": 1}]}]
        lines = written(tmp_path / "a.jsonl", b"\n".join(json.dumps(row).encode() for row in rows))
        self.written(tmp_path / "rows" / "1.parquet", rows[:1])
        self.written(tmp_path / "rows" / "2.parquet", rows[1:])
        stores = [prepare(settings(train_data_path=path)).store for path in (lines, tmp_path / "rows")]
        assert len({(store / "train.tokens.bin").read_bytes() for store in stores}) == 1

    def test_keys_that_a_row_does_not_have(self, tmp_path: Path) -> None:
        """Both rows have both keys in the file's struct; a column, and an item of a list, may be null all the same."""
        rows = [
            {"calls": [{"a": {"x": 1}}], "b": [1, None], "c": None},
            {"calls": [{"a": {"y": "z"}}], "b": [], "c": "d"},
        ]
        assert rows_of(self.written(tmp_path / "rows.parquet", rows)) == rows

    def test_wrong_column(self, settings: Settings, tmp_path: Path) -> None:
        path = self.written(tmp_path / "rows.parquet", [{"body": "a"}])
        with pytest.raises(UserError, match=r"rows\.parquet:1: no-column .*the row has `body`"):
            prepare(settings(train_data_path=path))

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        strings = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
        path = tmp_path / "rows.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"a": strings}), path)
        first, second, third = rows_of(path)
        assert (first, third) == ({"a": "a"}, {"a": "c"})
        assert isinstance(second, RowError)
        assert (second.code, second.message) == ("not-utf8", "a string of the row has the byte 0xff")

    def test_damaged(self, tmp_path: Path) -> None:
        path = self.written(tmp_path / "rows.parquet", ROWS)
        path.write_bytes(path.read_bytes()[:-20])
        assert f"`{path}` cannot be read as parquet" in refused(path)
        path.write_bytes(LINES)
        assert "is no parquet file" in refused(path)

    def test_change_while_it_is_read(self, tmp_path: Path) -> None:
        path = self.written(tmp_path / "rows.parquet", ROWS)
        lines = read_lines(path, sha256=digest_rows(path, KEY))
        next(lines)
        _append(path)
        with pytest.raises(UserError, match="changed while it was read"):
            list(lines)
