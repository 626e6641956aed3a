"""ruamel's complaints in words for a person, at the place where the mistake is rather than where it was noticed.

One table: a pattern over ruamel's `problem` (or `context: problem`), the code, and what to say instead. What no row
knows is passed on in ruamel's words.
"""

import re
from dataclasses import dataclass
from typing import Any

from .diagnostics import Diagnostic, Related, Severity, Span
from .source import SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """`at_context`: ruamel's context mark, where the construct began, is the better place."""

    pattern: re.Pattern[str]
    message: str
    help: str
    code: str = "SFTC110"
    at_context: bool = False
    began: str = ""


def _row(pattern: str, message: str, help: str, **more: Any) -> _Row:
    return _Row(pattern=re.compile(pattern), message=message, help=help, **more)


_ROWS = (
    _row(
        r"found character '\\t'",
        "a tab stands where YAML wants spaces",
        "replace the tab by spaces",
        code="SFTC111",
    ),
    _row(
        r"found character '(?P<what>.)' that cannot start",
        "a bare value cannot start with `{what}`",
        "put the value in quotes",
    ),
    _row(
        r"mapping values are not allowed",
        "a `:` is not expected here",
        "put quotes around a value that holds `: `; if it is a key, check the indentation of this line",
    ),
    _row(
        r"sequence entries are not allowed",
        "a list item is not expected here",
        "put the `-` on a line of its own, below the key",
    ),
    _row(
        r"could not find expected ':'",
        "this line is neither `key: value` nor the rest of the value above",
        "add the `:` behind the key, or check the indentation",
        at_context=True,
    ),
    _row(
        r"quoted scalar: found unexpected (end of stream|document separator)",
        "this quote is never closed",
        "add the closing quote",
        at_context=True,
    ),
    _row(
        r"unknown escape character '(?P<what>.+)'",
        "`\\{what}` is no escape that YAML knows",
        "use single quotes, or write `\\\\` for a backslash",
    ),
    _row(
        r"expected escape sequence of (?P<what>\d+)",
        "the escape wants {what} hexadecimal digits",
        "use single quotes, or write `\\\\` for a backslash",
    ),
    _row(
        r"scanning an alias",
        "a bare value cannot start with `*`",
        "put the value in quotes",
        at_context=True,
    ),
    _row(
        r"scanning an anchor",
        "a bare value cannot start with `&`",
        "put the value in quotes",
        at_context=True,
    ),
    _row(
        r"undefined tag handle '(?P<what>[^']*)'|(scanning|parsing) an? (tag|directive)",
        "tags and directives are not allowed",
        "write a plain value, or put it in quotes",
        code="SFTC118",
        at_context=True,
    ),
    _row(
        r"flow (sequence|mapping): expected ',' or '(?P<what>[\]}])'",
        "`,` or `{what}` is missing before this",
        "close the bracket, or separate the items by commas",
        began="the bracket was opened here",
    ),
    _row(
        r"but found '<stream end>'",
        "the text ends inside a bracket",
        "close every `[` and `{{`",
    ),
    _row(
        r"expected the node content, but found '(?P<what>[^<'][^']*)'",
        "`{what}` stands where a value is expected",
        "put a value that holds `{what}` in quotes",
    ),
    _row(
        r"mapping keys are not allowed|expected the node content",
        "this is not expected here",
        "put a value that begins with a special character in quotes",
    ),
    _row(
        r"scanning a block scalar|more indented follow up line",
        "this block of text is not well-formed",
        "start the text on the next line, indented evenly, below a lone `|` or `>`",
    ),
    _row(
        r"block (mapping|collection): expected <block end>, but found '<scalar>'",
        "text follows a value that has ended",
        "put the whole value in quotes, the other kind of quotes if it holds some",
    ),
    _row(
        r"block mapping: expected <block end>, but found '-'",
        "a list item stands among keys",
        "indent the list below its key",
        began="the keys began here",
    ),
    _row(
        r"block collection: expected <block end>",
        "a key stands among list items",
        "indent it below an item, or move it out of the list",
        began="the list began here",
    ),
    _row(
        r"block mapping: expected <block end>",
        "the indentation of this line fits no line above",
        "use the same number of spaces for keys of one section",
    ),
    _row(
        r"expected '<document start>'|after document end marker",
        "text follows a document that has ended",
        "keep one mapping in the file, without brackets around it",
    ),
)


def syntax_error(error: Any, source: SourceFile) -> Diagnostic:
    """`error` is a `MarkedYAMLError`."""
    complaint = f"{error.context}: {error.problem}" if error.context else str(error.problem)
    for row in _ROWS:
        if match := row.pattern.search(complaint):
            marks = (error.context_mark, error.problem_mark)
            mark = next(one for one in (marks if row.at_context else reversed(marks)) if one)
            related: tuple[Related, ...] = ()
            if row.began and error.context_mark:
                related = (Related(message=row.began, span=_at(error.context_mark, source)),)
            return Diagnostic(
                code=row.code,
                severity=Severity.ERROR,
                message=row.message.format(**match.groupdict()),
                span=_at(mark, source),
                help=row.help.format(**match.groupdict()),
                related=related,
            )
    span = _at(error.problem_mark or error.context_mark, source)
    return Diagnostic(code="SFTC110", severity=Severity.ERROR, message=f"not YAML: {complaint}", span=span)


def _at(mark: Any, source: SourceFile) -> Span:
    """One character at ruamel's mark; at the end of the text, the place behind the last character that is not blank."""
    line, column = mark.line + 1, mark.column + 1
    if mark.index >= len(source.text):
        ink = source.text.rstrip()
        line, column = ink.count("\n") + 1, len(ink) - ink.rfind("\n")
    return Span(file=source.name, line=line, column=column, end_line=line, end_column=column + 1)
