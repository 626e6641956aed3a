"""What every import ends with: the recipe's text, put through the checks of `sftc validate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..compile import check_text
from ..diagnostics import Diagnostic, Severity, has_errors, sort_diagnostics
from ..schemas import leaves
from .ledger import Entry, Fate, Ledger
from .table import keys_by_dest
from .text import example, is_missing, recipe_text

# Keys that a setting decides without holding their value.
KEYS = {"load": "model.load", "pretrained_checkpoint": "model.load", "train_data_path": "data.train_data_path"}
FLAG_CODES = ("SFTC301", "SFTC302", "SFTC303", "SFTC304")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """`text` is a recipe that compiles if there are no errors among `diagnostics`, else a draft of one.

    `sources` holds the text of every file that a report may quote, the recipe included.
    """

    text: str
    entries: tuple[Entry, ...]
    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, str]

    @property
    def valid(self) -> bool:
        return not has_errors(self.diagnostics)

    def count(self, fate: Fate) -> int:
        return sum(entry.fate is fate for entry in self.entries)


def finish(
    ledger: Ledger,
    *,
    title: str,
    output: str,
    given: Mapping[str, Any],
    sources: Mapping[str, str],
    diagnostics: list[Diagnostic],
) -> Imported:
    """`given` is what the command line says (`--set`); `output` is what reports call the recipe."""
    for key, value in given.items():
        ledger.give(key, value, f"--set {key}")
    entries = sorted(ledger.entries, key=lambda entry: _place(entry))
    text = recipe_text(ledger.values, entries, title)
    own = [*diagnostics, *ledger.diagnostics]
    checked = check_text(text, output).diagnostics
    if any(one.code in ("SFTC703", "SFTC704") for one in own):
        checked = [one for one in checked if one.code not in FLAG_CODES]
    reported = {KEYS.get(dest) or keys_by_dest().get(dest, dest) for dest in ledger.unsure}
    missing = [key for key, _ in leaves() if is_missing(key, ledger.values) and key not in reported]
    if missing or reported:
        checked = [one for one in checked if one.code != "SFTC207"]
    if missing:
        own.append(_unsaid(missing))
    return Imported(
        text=text,
        entries=tuple(entries),
        diagnostics=(*sort_diagnostics(own), *sort_diagnostics(checked)),
        sources={**sources, output: text},
    )


def failed(diagnostics: list[Diagnostic], sources: Mapping[str, str]) -> Imported:
    """A source from which nothing can be read."""
    assert has_errors(diagnostics)
    return Imported(text="", entries=(), diagnostics=tuple(sort_diagnostics(diagnostics)), sources=sources)


def _place(entry: Entry) -> tuple[bool, str, int]:
    span = entry.setting.span
    return (not entry.setting.own, span.file if span else "", span.line if span else 0)


def _unsaid(keys: list[str]) -> Diagnostic:
    lines = "\n".join(f"--set {key}={example(key)}" for key in keys)
    count = "a value" if len(keys) == 1 else f"{len(keys)} values"
    return Diagnostic(
        code="SFTC710",
        severity=Severity.ERROR,
        message=f"{count} that a recipe needs cannot be taken from the source: {', '.join(f'`{key}`' for key in keys)}",
        help=f"say what is right for your run, such as\n{lines}",
    )
