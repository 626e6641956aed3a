"""A few answers for the terminal."""

from collections.abc import Iterator
from pathlib import Path
from unicodedata import category, east_asian_width

from .answer import FILE
from .log import Logged, read

COUNT = 5
WIDTHS = (40, 24)  # of a question and of an answer, in columns


def few(run_path: Path, iteration: int) -> Iterator[str]:
    """Lines with some of the questions that were asked at `iteration`, the model's answers, and the references where
    the two are not the same. Nothing if nothing was asked.
    """
    logged = list(read(run_path / FILE, {iteration}))
    if not logged:
        return
    yield f"  {len(logged):,} questions were asked, such as:"
    chosen = [logged[at * len(logged) // COUNT] for at in range(COUNT)] if len(logged) > COUNT else logged
    for one in chosen:
        question, answer = (_fitted(text, width) for text, width in zip(_texts(one), WIDTHS, strict=True))
        yield f"  {question}  {answer}  {_verdict(one)}".rstrip()


def _texts(one: Logged) -> tuple[str, str]:
    return one.answer.question, one.answer.answer + (" ..." if one.answer.finish_reason == "length" else "")


def _verdict(one: Logged) -> str:
    if one.is_match:
        return "right"
    reference = _fitted(one.answer.reference, WIDTHS[1]).rstrip()
    return f"wrong: {reference}" if one.is_match is False else f"reference: {reference}"


def _fitted(text: str, columns: int) -> str:
    """One line of so many columns. Control characters, which a model may write, are shown as blanks."""
    shown, width = "", 0
    for character in " ".join("".join(" " if category(one)[0] == "C" else one for one in text).split()):
        wide = 2 if east_asian_width(character) in "WF" else 1
        if width + wide > columns - 3:
            return shown + "..." + " " * (columns - 3 - width)
        shown, width = shown + character, width + wide
    return shown + " " * (columns - width)
