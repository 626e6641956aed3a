"""Whether an answer says what its reference says: the part that a pattern finds in both, numbers by their value."""

import re
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from types import FrameType

from ..errors import UserError

LIMIT = 1.0  # seconds of one search; patterns in which repetitions are repeated can take for ever
PATIENCE = 10  # searches that may be given up before the pattern is
SHOWN = 200  # characters of a reference in a message
NUMBER = re.compile(r"[-+]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """`matches` has None where the reference does not have the pattern; `value` is the share of True among the others,
    None where there are none.
    """

    matches: list[bool | None]
    value: float | None
    notes: list[str]


def exact_match(answers: Sequence[str], references: Sequence[str], pattern: str | None) -> Exact:
    """Answers beside their references. Notes are sentences about what the value rests on."""
    finder = _Finder(pattern)
    wanted = [finder.find(one) for one in references]
    given = [finder.find(one) for one in answers]
    if finder.given_up > PATIENCE:
        note = f"the pattern takes longer than {LIMIT:g} s in {finder.given_up} texts: there is no exact match"
        return Exact(matches=[None] * len(answers), value=None, notes=[note])
    pairs = zip(given, wanted, strict=True)
    matches = [None if want is None else have is not None and _says(have) == _says(want) for have, want in pairs]
    counted = [one for one in matches if one is not None]
    value = sum(counted) / len(counted) if counted else None
    return Exact(matches=matches, value=value, notes=list(_notes(given, wanted, finder.given_up)))


def require_references(references: Sequence[str], pattern: str | None) -> None:
    """UserError where the pattern is in none of the references, or a search for it takes too long."""
    if pattern is None or not references:
        return
    finder = _Finder(pattern)
    for number, reference in enumerate(references, 1):
        if finder.find(reference) is not None:
            return
        if finder.given_up:
            raise UserError(
                f"`eval.generate.answer_pattern` (`{pattern}`) takes longer than {LIMIT:g} s in reference {number}",
                help="a repetition in a repetition, as in `(a+)+`, tries every way to part the text",
            )
    raise UserError(
        f"`eval.generate.answer_pattern` (`{pattern}`) is in none of the {len(references)} references; "
        f"the first one ends with {references[0][-SHOWN:]!r}",
        help="write a pattern of the answers in the validation rows, or leave it out to compare whole texts",
    )


def definition(pattern: str | None) -> str:
    """What the figure is, for scores.json."""
    if pattern is None:
        return "share of answers that are the reference, but for white space around it; numbers are compared by value"
    return (
        f"of the references that have the pattern {pattern}, the share whose answer has the same text where it has the "
        "pattern first, but for white space around it; numbers are compared by value"
    )


class _TooSlow(Exception):
    pass


class _Finder:
    """`given_up` counts the texts in which the search took too long; they count as without the pattern."""

    def __init__(self, pattern: str | None) -> None:
        self._pattern = None if pattern is None else compiled(pattern)
        self.given_up = 0

    def find(self, text: str) -> str | None:
        """What is compared of `text`; None where the pattern is not in it, or its group found only white space."""
        if self._pattern is None:
            return text
        if self.given_up > PATIENCE:
            return None
        try:
            with _limited():
                match = self._pattern.search(text)
        except _TooSlow:
            self.given_up += 1
            return None
        found = match[min(1, self._pattern.groups)] if match else None
        return (found or "").strip() or None


def compiled(pattern: str) -> re.Pattern[str]:
    """Without Python's warnings of what a later one may read otherwise; re.error and others as usual."""
    with warnings.catch_warnings(action="ignore"):
        return re.compile(pattern)


@contextmanager
def _limited() -> Iterator[None]:
    """_TooSlow after LIMIT seconds: `re` looks for signals while it searches. No limit outside the main thread, which
    alone gets them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_armed = True

    def ring(_number: int, _frame: FrameType | None) -> None:
        if is_armed:  # not after the search, however late the signal comes
            raise _TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        yield
    finally:
        is_armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _says(text: str) -> str | Decimal:
    """A number without the commas between its thousands and without a full stop behind it; else the text."""
    text = text.strip()
    number = text.rstrip(".,")
    return Decimal(number.replace(",", "")) if NUMBER.fullmatch(number) else text


def _notes(given: Sequence[str | None], wanted: Sequence[str | None], given_up: int) -> Iterator[str]:
    without, count = wanted.count(None), len(wanted)
    if given_up:
        yield f"the search for the pattern was given up in {given_up} texts, after {LIMIT:g} s each"
    if without == count:
        if count:
            yield f"the pattern is in none of the {count} references: there is no exact match"
        return
    if without:
        yield f"the pattern is not in {without} of the {count} references, and exact match is that of the others"
    if given.count(None) == count:
        yield f"the pattern is in none of the {count} answers"
