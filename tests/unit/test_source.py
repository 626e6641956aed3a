"""Reading: which bytes become text, and where the refused ones stand."""

import hashlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sftc.compiler.diagnostics import Diagnostic, Span
from sftc.compiler.source import MAX_BYTES, SourceFile, read_source, source_from_bytes


def only(diagnostics: list[Diagnostic]) -> Diagnostic:
    assert len(diagnostics) == 1, diagnostics
    return diagnostics[0]


def position(item: Diagnostic) -> tuple[int, int]:
    assert item.span is not None
    return item.span.line, item.span.column


def test_reads_text_and_digests_the_bytes_on_disk(tmp_path: Path) -> None:
    raw = "\ufeffname: é\r\nother: 1\rlast: 2\n".encode()
    (tmp_path / "r.yaml").write_bytes(raw)
    source, diagnostics = read_source(tmp_path / "r.yaml", "r.yaml")
    assert diagnostics == []
    assert source == SourceFile(
        name="r.yaml", text="name: é\nother: 1\nlast: 2\n", sha256=hashlib.sha256(raw).hexdigest()
    )


def test_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"name: x\n")))
    source, diagnostics = read_source(None, "<stdin>")
    assert diagnostics == []
    assert source is not None
    assert (source.name, source.text) == ("<stdin>", "name: x\n")


@pytest.mark.parametrize("name", ["missing.yaml", "file.yaml/below", "nul\0name"])
def test_unreadable_path_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.yaml").write_text("name: x\n")
    source, diagnostics = read_source(tmp_path / name, name)
    assert source is None
    assert only(diagnostics).code == "SFTC101"
    assert f"`{name}`" in only(diagnostics).message


def test_directory_is_told_apart(tmp_path: Path) -> None:
    source, diagnostics = read_source(tmp_path, "recipes")
    assert source is None
    assert (only(diagnostics).code, only(diagnostics).message) == ("SFTC102", "`recipes` is a directory, not a recipe")


def test_size_limit_is_exact() -> None:
    assert source_from_bytes(b"#" * MAX_BYTES, "r")[1] == []
    source, diagnostics = source_from_bytes(b"#" * (MAX_BYTES + 1), "r")
    assert source is None
    assert only(diagnostics).code == "SFTC105"


@pytest.mark.parametrize(
    ("raw", "line", "column"),
    [
        (b"\xff", 1, 1),
        (b"a: 1\nb: \xe9\n", 2, 4),
        ("é日: ".encode() + b"\x80", 1, 5),
        (b"a: 1\r\nb: \xc3", 2, 4),
        (b"\xef\xbb\xbfa\xff", 1, 2),
        ("name: x\n".encode("utf-16"), 1, 1),
        (b"a: \xed\xa0\x80", 1, 4),
    ],
)
def test_byte_that_is_not_utf8_is_placed_in_code_points(raw: bytes, line: int, column: int) -> None:
    source, diagnostics = source_from_bytes(raw, "r")
    assert source is None
    assert only(diagnostics).code == "SFTC103"
    assert position(only(diagnostics)) == (line, column)


@pytest.mark.parametrize(
    "character", ["\0", "\x07", "\x0b", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\u2066", "\u200f", "\ufeff"]
)
def test_invisible_character_is_refused_where_it_stands(character: str) -> None:
    source, diagnostics = source_from_bytes(f"a: 日\nbé: {character}x\n".encode(), "r")
    assert source is None
    assert only(diagnostics).code == "SFTC104"
    assert f"U+{ord(character):04X}" in only(diagnostics).message
    assert position(only(diagnostics)) == (2, 5)


def test_every_invisible_character_is_reported() -> None:
    diagnostics = source_from_bytes(b"\x01a\n\x02\x03", "r")[1]
    assert [position(item) for item in diagnostics] == [(1, 1), (2, 1), (2, 2)]


@pytest.mark.parametrize("text", ["tab\there", "e\u0301", "日本語", "👩\u200d👩", "non\u00a0breaking", ""])
def test_writing_of_all_kinds_passes(text: str) -> None:
    source, diagnostics = source_from_bytes(text.encode(), "r")
    assert diagnostics == []
    assert source is not None
    assert source.text == text


@pytest.mark.parametrize(
    ("span", "text"), [((1, 1, 1, 3), "ab"), ((1, 2, 2, 2), "b\nc"), ((3, 1, 3, 1), ""), ((1, 1, 3, 1), "ab\ncd\n")]
)
def test_slice_gives_the_text_of_a_span(span: tuple[int, int, int, int], text: str) -> None:
    line, column, end_line, end_column = span
    source = SourceFile(name="r", text="ab\ncd\n", sha256="")
    where = Span(file="r", line=line, column=column, end_line=end_line, end_column=end_column)
    assert source.slice(where) == text
