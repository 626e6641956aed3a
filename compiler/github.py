"""Diagnostics as workflow commands of GitHub Actions: annotations beside the changed lines of a pull request.

Format: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from collections.abc import Iterator, Mapping, Sequence

from .diagnostics import Diagnostic, Severity, Span

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
_IN_MESSAGE = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTY = {**_IN_MESSAGE, ":": "%3A", ",": "%2C"}


def render_github(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], colour: bool) -> str:  # noqa: ARG001
    """One line each, `::error file=...,line=...,title=CODE::message`; a related place is a notice of its own."""
    return "".join(f"{line}\n" for item in diagnostics for line in _commands(item))


def _commands(item: Diagnostic) -> Iterator[str]:
    text = f"{item.message}\nhelp: {item.help}" if item.help else item.message
    yield _command(_LEVELS[item.severity], item.code, text, item.span)
    for one in item.related:
        yield _command("notice", item.code, one.message, one.span)


def _command(level: str, title: str, text: str, span: Span | None) -> str:
    properties: dict[str, str | int] = {}
    if span:
        properties = {"file": span.file, "line": span.line, "endLine": span.end_line}
        # An annotation has columns only if it ends on its line.
        if span.line == span.end_line:
            properties |= {"col": span.column, "endColumn": span.end_column}
    properties["title"] = title
    listed = ",".join(f"{name}={_escape(str(value), _IN_PROPERTY)}" for name, value in properties.items())
    return f"::{level} {listed}::{_escape(text, _IN_MESSAGE)}"


def _escape(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)
