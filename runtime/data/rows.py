"""Rows that cannot be used: the exception that says so about one row, and the account of all of them."""

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 20


class RowError(Exception):
    """One row cannot be used. `code` is a short kebab-case word that is counted, `message` says what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class BadRows:
    """Counts bad rows by code and keeps the first `SHOWN` reports as `file:line: code message`."""

    file: str
    counts: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)

    def add(self, line: int, error: RowError) -> None:
        self.counts[error.code] += 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"{self.file}:{line}: {error.code} {error.message}")

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
