"""YAML intake: values, spans, and what is refused."""

import math
import random
import time
from typing import Any

import pytest

from sftc.compiler.diagnostics import Diagnostic, Span
from sftc.compiler.loader import MAX_DEPTH, RecipeDocument, load
from sftc.compiler.source import SourceFile


def read(text: str) -> tuple[RecipeDocument | None, list[Diagnostic]]:
    return load(SourceFile(name="r.yaml", text=text, sha256=""))


def clean(text: str) -> RecipeDocument:
    document, diagnostics = read(text)
    assert diagnostics == []
    assert document is not None
    return document


def reports(text: str) -> list[tuple[str, int, int]]:
    return [(item.code, item.span.line, item.span.column) for item in read(text)[1] if item.span]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1", 1),
        ("-17", -17),
        ("+5", 5),
        ("0", 0),
        ("0x1F", 31),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("1e5", 1e5),
        ("2.5e+3", 2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-0.0", -0.0),
        ("0e0", 0.0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("tRue", "tRue"),
        ("yEs", "yEs"),
        ("'yes'", "yes"),
        ('"1"', "1"),
        ("'.nan'", ".nan"),
        ("'1_000'", "1_000"),
        ("nan", "nan"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("v1_000", "v1_000"),
        ("_1", "_1"),
        ("1,000", "1,000"),
        ("10.0.0.1:29500", "10.0.0.1:29500"),
        ("1:99", "1:99"),
        ("2025-01-31-final", "2025-01-31-final"),
        ("data/yes.jsonl", "data/yes.jsonl"),
        ("=", "="),
        ("a#b", "a#b"),
        ("日本 é", "日本 é"),
    ],
)
def test_words_become_the_values_of_yaml_1_2(word: str, value: object) -> None:
    got = clean(f"key: {word}\n").data["key"]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("word", "code", "help"),
    [
        ("yes", "SFTC120", "`true`"),
        ("No", "SFTC120", "`false`"),
        ("ON", "SFTC120", "`true`"),
        ("off", "SFTC120", "`false`"),
        (".nan", "SFTC121", "finite"),
        ("-.inf", "SFTC121", "finite"),
        ("1e400", "SFTC121", "finite"),
        ("-1e999", "SFTC121", "finite"),
        ("1e-400", "SFTC121", "finite"),
        ("9223372036854775808", "SFTC121", "2^63"),
        ("9" * 5000, "SFTC121", "2^63"),
        ("0x" + "f" * 5000, "SFTC121", "2^63"),
        ("1_000", "SFTC122", "`1000`"),
        ("-1_0.5_0", "SFTC122", "`-10.50`"),
        ("010", "SFTC123", "`10`"),
        ("-007", "SFTC123", "`-7`"),
        ("0o17", "SFTC123", "`15`"),
        ("0b101", "SFTC123", "`5`"),
        ("12:30:00", "SFTC124", '"12:30:00"'),
        ("1:30", "SFTC124", '"1:30"'),
        ("2025-01-31", "SFTC125", '"2025-01-31"'),
        ("2025-01-31T10:00:00Z", "SFTC125", "2025"),
        ("2025-1-1 1:00:00.5 +2", "SFTC125", "2025"),
        ("!!str 5", "SFTC118", "plain"),
        ("!!python/object/apply:os.system [echo]", "SFTC118", "plain"),
        ("!include other.yaml", "SFTC118", "plain"),
        ("! 5", "SFTC118", "plain"),
        ("&anchor 5", "SFTC116", "value"),
        ("*alias", "SFTC116", '"*alias"'),
        ('"a\\0b"', "SFTC104", "escape"),
        ('"\\ud800"', "SFTC104", "escape"),
        ('"\\u202e"', "SFTC104", "escape"),
        ('"\\x9b"', "SFTC104", "escape"),
        ('"\\L"', "SFTC104", "escape"),
        ("@home", "SFTC110", "quotes"),
        ("`x`", "SFTC110", "quotes"),
        ("\tx", "SFTC111", "spaces"),
    ],
)
def test_words_that_readers_disagree_about_are_refused(word: str, code: str, help: str) -> None:
    (item,) = read(f"key: {word}\n")[1]
    assert item.code == code
    assert help in (item.help or "")
    assert item.span is not None
    assert (item.span.line, item.span.column) == (1, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", [("SFTC114", 2, 1)]),
        ("a: {b: 1, 'b': 2}\n", [("SFTC114", 1, 11)]),
        ("1: x\n", [("SFTC115", 1, 1)]),
        ("true: x\n", [("SFTC115", 1, 1)]),
        ("null: x\n", [("SFTC115", 1, 1)]),
        (".inf: x\n", [("SFTC115", 1, 1)]),
        ("? [a]\n: x\n", [("SFTC115", 1, 3)]),
        ("a: {{ x }}\n", [("SFTC115", 1, 5)]),
        ("*a : 1\n", [("SFTC116", 1, 1)]),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", [("SFTC116", 1, 4), ("SFTC117", 3, 3), ("SFTC116", 3, 7)]),
        ("%YAML 1.1\n---\na: 1\n", [("SFTC113", 1, 1)]),
        ("a: 1\n---\nb: 2\n", [("SFTC112", 2, 1)]),
        ("", [("SFTC107", 1, 1)]),
        ("# only a comment\n", [("SFTC107", 1, 1)]),
        ("---\n", [("SFTC107", 1, 4)]),
        ("- a\n- b\n", [("SFTC108", 1, 1)]),
        ("just words\n", [("SFTC108", 1, 1)]),
        ("null\n", [("SFTC108", 1, 1)]),
    ],
)
def test_structures_that_are_refused(text: str, expected: list[tuple[str, int, int]]) -> None:
    assert reports(text) == expected


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "words"),
    [
        ("a: b: c\n", "SFTC110", 1, 5, "`:` is not expected"),
        ("a: 1\n  b: 2\n", "SFTC110", 2, 4, "`:` is not expected"),
        ("a:\n    b: 1\n  c: 2\n", "SFTC110", 3, 3, "indentation"),
        ("a: 'x\nb: 1\n", "SFTC110", 1, 4, "never closed"),
        ('a: "x\\qy"\n', "SFTC110", 1, 7, "`\\q`"),
        ("a: [1, 2\nb: 3\n", "SFTC110", 2, 2, "`]` is missing"),
        ("a: [1, 2", "SFTC110", 1, 9, "`]` is missing"),
        ("a: {b: 1\n", "SFTC110", 1, 9, "`}` is missing"),
        ("a: - b\n", "SFTC110", 1, 4, "list item"),
        ("a: 1\n- b\n", "SFTC110", 2, 1, "list item"),
        ("- a\nb: 1\n", "SFTC110", 2, 1, "among list items"),
        ("a: 'x' y\n", "SFTC110", 1, 8, "text follows"),
        ("a: 1\nlonely\nb: 1\n", "SFTC110", 2, 1, "neither `key: value`"),
        ("a:\n\tb: 1\n", "SFTC111", 2, 1, "tab"),
        ("a: !x!y 1\n", "SFTC118", 1, 4, "tags"),
        ("{a: 1}\nb: 2\n", "SFTC110", 2, 1, "has ended"),
        ("a: |0\n  x\n", "SFTC110", 1, 5, "block of text"),
        ("a: ]\n", "SFTC110", 1, 4, "`]`"),
    ],
)
def test_syntax_errors_stand_where_the_mistake_is(text: str, code: str, line: int, column: int, words: str) -> None:
    document, diagnostics = read(text)
    assert document is None
    (item,) = diagnostics
    assert item.span is not None
    assert (item.code, item.span.line, item.span.column) == (code, line, column)
    assert words in item.message


def test_both_places_of_a_duplicate_key_are_named() -> None:
    (item,) = read("train:\n  lr: 1\n  wd: 2\n  lr: 3\n")[1]
    assert item.span == Span(file="r.yaml", line=4, column=3, end_line=4, end_column=5)
    assert [one.span for one in item.related] == [Span(file="r.yaml", line=2, column=3, end_line=2, end_column=5)]
    assert item.pointer == "/train/lr"


def test_all_mistakes_come_at_once_and_the_rest_is_still_read() -> None:
    document, diagnostics = read("a: yes\nb: 1_000\nc: .nan\nd: 1\nd: 2\ne: *x\nf: fine\n")
    assert [item.code for item in diagnostics] == ["SFTC120", "SFTC122", "SFTC121", "SFTC114", "SFTC116"]
    assert document is not None
    assert document.data == {"a": True, "b": 1000, "c": None, "d": 1, "e": None, "f": "fine"}
    assert document.broken == {"/a", "/b", "/c", "/e"}


def test_mistakes_before_a_syntax_error_are_kept() -> None:
    assert [code for code, *_ in reports("a: yes\nb: 'open\n")] == ["SFTC120", "SFTC110"]


def test_a_word_of_yaml_1_1_is_a_key_like_any_other() -> None:
    assert clean("on: 1\nno: 2\n").data == {"on": 1, "no": 2}


def test_merge_key_marks_its_mapping_as_incomplete() -> None:
    document, _ = read("a:\n  <<: {b: 1}\n  c: 2\n")
    assert document is not None
    assert document.data == {"a": {"c": 2}}
    assert document.broken == {"/a/<<"}


@pytest.mark.parametrize(
    ("text", "pointer", "key", "value"),
    [
        ("a: 1 # c\n", "/a", (1, 1, 1, 2), (1, 4, 1, 5)),
        ("é日: 日本 # c\n", "/é日", (1, 1, 1, 3), (1, 5, 1, 7)),
        ("a:\n  b: 1\n\n# end\nc: 2\n", "/a", (1, 1, 1, 2), (2, 3, 2, 7)),
        ("a: # none\n\nb: 1\n", "/a", (1, 1, 1, 2), (1, 3, 1, 3)),
        ("a: [x, {y: 2}] # c\n", "/a", (1, 1, 1, 2), (1, 4, 1, 15)),
        ("a:\n- 1\n-   # x - y\n- 3\n", "/a/1", None, (3, 2, 3, 2)),
        ("a/b~c: 1\n", "/a~1b~0c", (1, 1, 1, 6), (1, 8, 1, 9)),
        ("# c\n\na: 1\n", "", None, (3, 1, 3, 5)),
        ("---\na: 1\n...\n", "", None, (2, 1, 2, 5)),
        ('a: "b: c"\n', "/a", (1, 1, 1, 2), (1, 4, 1, 10)),
    ],
)
def test_places(
    text: str, pointer: str, key: tuple[int, int, int, int] | None, value: tuple[int, int, int, int]
) -> None:
    place = clean(text).places[pointer]
    assert (place.key and corners(place.key)) == key
    assert corners(place.value) == value


def corners(span: Span) -> tuple[int, int, int, int]:
    return span.line, span.column, span.end_line, span.end_column


def pointers(value: Any, pointer: str = "") -> list[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [pointer, *(found for key, child in inner for found in pointers(child, f"{pointer}/{key}"))]


def random_yaml(rng: random.Random, depth: int, indent: int) -> str:
    """A block or flow value with comments and blank lines strewn in; its text starts behind `key:` or `-`."""
    kind = rng.choice(["scalar", "scalar", "flow", "text", "mapping", "list"] if depth < 4 else ["scalar", "flow"])
    pad, tail = " " * indent, rng.choice(["", "", " # é 日 - note", "\n", "\n# - x: y"])
    if kind == "scalar":
        return (
            " " + rng.choice(["1", "1e-5", "é日本", "'it''s: # no'", '"x: \\"y\\""', "", "true", "a b"]) + tail + "\n"
        )
    if kind == "flow":
        return (
            " "
            + rng.choice(["[]", "{}", "[1, [é, {a: b}], 'x']", "{a: 1, b: [2, 3], c: }", "[\n  1,\n  2]"])
            + tail
            + "\n"
        )
    if kind == "text":
        style = rng.choice(["|", ">-", "|+"])
        return f" {style}\n{pad}  line 日\n\n{pad}    more # text\n"
    count = rng.randint(1, 4)
    if kind == "list":
        return tail + "\n" + "".join(f"{pad}-{random_yaml(rng, depth + 1, indent + 2)}" for _ in range(count))
    return tail + "\n" + "".join(f"{pad}key{i}:{random_yaml(rng, depth + 1, indent + 2)}" for i in range(count))


@pytest.mark.parametrize("seed", range(60))
def test_text_of_every_span_reads_as_its_value_again(seed: int) -> None:
    rng = random.Random(seed)
    document = clean("".join(f"top{i}:{random_yaml(rng, 0, 2)}" for i in range(4)))
    assert set(document.places) == set(pointers(document.data))
    for pointer, place in document.places.items():
        value: Any = document.data
        for part in pointer.split("/")[1:]:
            value = value[int(part)] if isinstance(value, list) else value[part]
        piece = document.source.slice(place.value)
        # Blocks keep their indentation, which began left of the span.
        lines = f"{' ' * (place.value.column - 1)}{piece.removesuffix('\n')}".split("\n")
        again = clean("v:\n" + "".join(f" {line}\n" for line in lines)).data["v"]
        assert again == value, (pointer, piece)
        if place.key is not None:
            assert document.source.slice(place.key) == pointer.rpartition("/")[2]


def test_no_value_is_ever_a_number_that_compares_with_nothing() -> None:
    for word in (".nan", ".NaN", ".inf", "-.INF", "1e309"):
        document, _ = read(f"a: {word}\n")
        assert document is not None
        assert not isinstance(document.data["a"], float) or math.isfinite(document.data["a"])


HOSTILE = {
    "alias bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)),
    "alias of itself": "a: &a [*a]\n",
    "flow lists": "a: " + "[" * 60_000,
    "flow mappings": "a: " + "{a: " * 20_000,
    "block lists": "a:\n" + "- " * 60_000,
    "complex keys": "? " * 60_000,
    "block mappings": "".join(" " * depth + "a:\n" for depth in range(300)),
    "one long word": "a: " + "x" * 120_000,
    "quotes": "a: " + "'" * 120_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_answered_soon(text: str) -> None:
    start = time.process_time()
    document, diagnostics = read(text)
    assert time.process_time() - start < 1
    assert document is not None or diagnostics


def test_depth_limit_is_exact() -> None:
    def nested(depth: int) -> str:
        return "a: " + "[" * depth + "]" * depth

    assert clean(nested(MAX_DEPTH)).data
    assert [code for code, *_ in reports(nested(MAX_DEPTH + 1))] == ["SFTC106"]


@pytest.mark.parametrize("seed", range(20))
def test_mangled_text_gives_reports_inside_the_text_and_never_an_exception(seed: int) -> None:
    rng = random.Random(seed)
    base = "name: é\ntask: {is_sft: true}\ntrain:\n  lr: 1e-5 # c\n  list:\n    - a\n    - b: |\n        x\n"
    pieces = [*"\n\n  ::-[]{}\"'#&*!|>%@`?,.0_\t~<\\", "日", "\n---\n", "\n...\n", "- ", "? ", "<<: ", "!!str ", "*a "]
    for _ in range(40):
        text = list(base)
        for _ in range(rng.randint(1, 6)):
            at = rng.randint(0, len(text))
            text[at : at + rng.choice([0, 0, 0, 3])] = [rng.choice(pieces)]
        document, diagnostics = read("".join(text))
        assert document is not None or diagnostics
        lines = "".join(text).split("\n")
        for item in diagnostics:
            assert item.span is not None
            assert 1 <= item.span.line <= len(lines)
            assert 1 <= item.span.column <= len(lines[item.span.line - 1]) + 1
