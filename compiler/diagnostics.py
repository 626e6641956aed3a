"""A user's mistake as a value: what is wrong, where, and the remedy.

Stages return diagnostics and go on; nothing here prints or raises for a user's mistake.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from .codes import CODES


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """A stretch of text: 1-based lines and columns, columns in code points, the end exclusive.

    A span of no width (end equals start) names the place where something is missing.
    """

    file: str
    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """A second place that the reader has to look at."""

    message: str
    span: Span | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One report. `message` starts in lower case without a final period; `help` may have several lines.

    `pointer` is the JSON pointer (RFC 6901) of the value in the recipe. `code` has to be a key of `CODES`.
    """

    code: str
    severity: Severity
    message: str
    span: Span | None = None
    pointer: str | None = None
    help: str | None = None
    related: tuple[Related, ...] = ()

    def __post_init__(self) -> None:
        assert self.code in CODES, f"{self.code} is not in the table of codes"


def sort_diagnostics(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Each report once, ordered by file, position and code; reports without a place come first."""

    def position(item: Diagnostic) -> tuple[str, int, int, str, str]:
        span = item.span
        where = (span.file, span.line, span.column) if span else ("", 0, 0)
        return (*where, item.code, item.message)

    return sorted(dict.fromkeys(diagnostics), key=position)


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    return any(item.severity is Severity.ERROR for item in diagnostics)
