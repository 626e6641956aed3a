"""Rows: what a row may be, the exception that says why one cannot be used, and the account of all of these."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

SHOWN = 20

# An object with columns, or a bare list of messages.
type Row = dict[str, Any] | list[Any]


class RowError(Exception):
    """One row cannot be used. `code` is a short kebab-case word that is counted, `message` says what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class BadRows:
    """Counts bad rows by code and keeps the first `SHOWN` reports as `file:line: code message`.

    `file` is what the recipe names; where that is a directory, `add` is told the file in it.
    """

    file: str
    counts: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)

    def add(self, line: int, error: RowError, file: str | None = None) -> None:
        self.counts[error.code] += 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"{file or self.file}:{line}: {error.code} {error.message}")

    @property
    def total(self) -> int:
        return self.counts.total()

    def report(self) -> str:
        """The reports that were kept, one per line, then the totals by code."""
        lines = list(self.shown)
        if self.total > len(self.shown):
            lines.append(f"... and {self.total - len(self.shown):,} more")
        totals = ", ".join(f"{code} {count:,}" for code, count in sorted(self.counts.items()))
        return "\n".join([*lines, f"by reason: {totals}"])


def column(row: dict[str, Any], name: str, types: type | tuple[type, ...], wanted: str) -> Any:
    """The value of column `name`; RowError if it is not there or of none of `types`, which `wanted` says in words."""
    if name not in row:
        has = ", ".join(f"`{key}`" for key in row) or "no column at all"
        raise RowError("no-column", f"there is no column `{name}`; the row has {has}")
    if not isinstance(row[name], types):
        raise RowError("wrong-type", f"column `{name}` holds {json_type(row[name])}, not {wanted}")
    return row[name]


def json_type(value: Any) -> str:
    """The JSON name of `value`'s type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
