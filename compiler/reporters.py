"""Diagnostics as text: one function per output format, all in the table `REPORTERS`.

Pure functions of diagnostics and sources; they neither sort nor filter, and never look at a terminal.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from .diagnostics import Diagnostic, Severity, Span
from .github import render_github
from .sarif import render_sarif

type Sources = Mapping[str, str]


class Reporter(Protocol):
    def __call__(self, diagnostics: Sequence[Diagnostic], sources: Sources, colour: bool) -> str:
        """`sources` maps file names to their text; a file that is missing there is named without its lines."""


# SGR parameters: bold red, bold yellow, bold cyan; bold blue for the frame.
_COLOURS = {Severity.ERROR: "1;31", Severity.WARNING: "1;33", Severity.NOTE: "1;36"}
_FRAME = "1;34"
_BOLD = "1"
_TAB = 4
# A longer source line is cut to this many columns around the caret.
_WINDOW = 120

# What a terminal would act on instead of showing: C0, DEL, C1, separators, direction marks.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def render_text(diagnostics: Sequence[Diagnostic], sources: Sources, colour: bool) -> str:
    """Blocks as rustc prints them: message, place, source line with carets, related places, help."""
    return "\n".join("\n".join(_block(item, sources, colour)) + "\n" for item in diagnostics)


def render_concise(diagnostics: Sequence[Diagnostic], sources: Sources, colour: bool) -> str:  # noqa: ARG001
    """One line each: `file:line:column: error[CODE] message`."""
    lines: list[str] = []
    for item in diagnostics:
        where = f"{_place(item.span)}: " if item.span else ""
        label = _paint(f"{item.severity}[{item.code}]", _COLOURS[item.severity], colour)
        lines.append(f"{_safe(where)}{label} {_safe(item.message)}\n")
    return "".join(lines)


def render_json(diagnostics: Sequence[Diagnostic], sources: Sources, colour: bool) -> str:  # noqa: ARG001
    """An array that satisfies schema/diagnostics.schema.json."""
    return json.dumps([to_json(item) for item in diagnostics], ensure_ascii=False, indent=2) + "\n"


REPORTERS: Mapping[str, Reporter] = {
    "text": render_text,
    "concise": render_concise,
    "json": render_json,
    "github": render_github,
    "sarif": render_sarif,
}
# One document each, which has to stand alone on its stream, and is there even if nothing is to report.
DOCUMENTS = frozenset({"json", "sarif"})


def to_json(item: Diagnostic) -> dict[str, Any]:
    """One diagnostic as plain data; every key is present."""
    return {
        "code": item.code,
        "severity": item.severity.value,
        "message": item.message,
        "span": _span_json(item.span),
        "pointer": item.pointer,
        "help": item.help,
        "related": [{"message": one.message, "span": _span_json(one.span)} for one in item.related],
    }


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """`2 errors, 1 warning`; empty when there is nothing to count."""
    counts = ((severity, sum(item.severity is severity for item in diagnostics)) for severity in Severity)
    return ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts if count)


def width(text: str) -> int:
    """Terminal columns of `text`: East Asian wide characters take two, combining ones none (UAX 11)."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _span_json(span: Span | None) -> dict[str, Any] | None:
    return None if span is None else asdict(span)


def _block(item: Diagnostic, sources: Sources, colour: bool) -> Iterator[str]:
    spans = [span for span in (item.span, *(one.span for one in item.related)) if span]
    gutter = max((len(str(span.line)) for span in spans), default=1)
    main = _COLOURS[item.severity]
    label = _paint(f"{item.severity}[{item.code}]", main, colour)
    yield f"{label}{_paint(f': {_safe(item.message)}', _BOLD, colour)}"
    if item.span:
        yield from _excerpt(item.span, sources, gutter, main, colour)
    for one in item.related:
        yield f"{_paint('note', _COLOURS[Severity.NOTE], colour)}: {_safe(one.message)}"
        if one.span:
            yield from _excerpt(one.span, sources, gutter, _COLOURS[Severity.NOTE], colour)
    if item.help:
        first, *rest = _safe(item.help).split("\n")
        yield f"{_paint('help', _COLOURS[Severity.NOTE], colour)}: {first}"
        yield from (f"      {line}" for line in rest)


def _excerpt(span: Span, sources: Sources, gutter: int, caret_colour: str, colour: bool) -> Iterator[str]:
    """The place, and the first line of the span with carets below it."""
    yield f"{' ' * gutter}{_paint('-->', _FRAME, colour)} {_safe(_place(span))}"
    lines = sources.get(span.file, "").split("\n")
    if span.file not in sources or span.line > len(lines):
        return
    line = lines[span.line - 1]
    start = span.column - 1
    end = span.end_column - 1 if span.end_line == span.line else len(line.rstrip())
    before, marked, after = _cut(*(_safe(part) for part in (line[:start], line[start:end], line[end:])))
    before = _expand(before)
    bar = _paint("|", _FRAME, colour)
    carets = "^" * max(1, width(_expand(marked, width(before))))
    shown = f"{before}{_expand(marked + after, width(before))}".rstrip()
    yield f"{' ' * gutter} {bar}"
    yield f"{_paint(f'{span.line:>{gutter}}', _FRAME, colour)} {bar} {shown}"
    yield f"{' ' * gutter} {bar} {' ' * width(before)}{_paint(carets, caret_colour, colour)}"


def _cut(before: str, marked: str, after: str) -> tuple[str, str, str]:
    """A window of a long line around its marked part."""
    if len(before) + len(marked) + len(after) <= _WINDOW:
        return before, marked, after
    if len(marked) > _WINDOW // 2:
        marked, after = marked[: _WINDOW // 2], "..."
    room = (_WINDOW - len(marked)) // 2
    if len(before) > room:
        before = "..." + before[-room:]
    if len(after) > room:
        after = after[:room] + "..."
    return before, marked, after


def _expand(text: str, column: int = 0) -> str:
    """Tabs to blanks, counted in terminal columns from `column`."""
    pieces = []
    for character in text:
        piece = " " * (_TAB - column % _TAB) if character == "\t" else character
        column += width(piece)
        pieces.append(piece)
    return "".join(pieces)


def _place(span: Span) -> str:
    return f"{span.file}:{span.line}:{span.column}"


def _safe(text: str) -> str:
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def _paint(text: str, colour_code: str, colour: bool) -> str:
    return f"\x1b[{colour_code}m{text}\x1b[0m" if colour else text
