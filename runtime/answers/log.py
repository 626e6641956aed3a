"""answers.jsonl: one object per conversation and evaluation, in the order of rows; each once, also after restarts."""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..appended import Line, appending, lines
from .answer import FILE, Answer, described

TYPES = {field.name: int if field.type is int else str for field in fields(Answer)}
REASONS = ("stop", "length")


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A line. `is_compared`: exact match was asked for; `is_match` is None where it was not, or where the reference
    holds nothing to compare with.
    """

    iteration: int
    answer: Answer
    is_compared: bool
    is_match: bool | None


class AnswerLog:
    """The file, open for appending. Every line is on disk (in the page cache) when `write` returns."""

    def __init__(self, run_path: Path, *, resumed_at: int) -> None:
        """Lines past `resumed_at` go: those iterations are trained again. A line that a kill tore goes as well."""
        path = run_path / FILE
        self._file = appending(path, resumed_at=resumed_at)
        self._written = {(line.iteration, line.answer.row) for line in read(path)}

    def write(self, iteration: int, answers: Sequence[Answer], matches: Sequence[bool | None] | None = None) -> None:
        """The lines of an evaluation. `matches` are their exact matches, None where that is not asked for. What is in
        the file already stays, and is not written again.
        """
        texts = []
        for one in described(answers, matches):
            if (iteration, one["row"]) not in self._written:
                texts.append(json.dumps({"iteration": iteration, **one}, ensure_ascii=False) + "\n")
        self._written |= {(iteration, answer.row) for answer in answers}
        self._file.write("".join(texts))

    def close(self) -> None:
        self._file.close()


def read(path: Path, iterations: Container[int] | None = None) -> Iterator[Logged]:
    """Every whole line, or those of `iterations` alone, one after the other; none if there is no file. What is no line
    of such a file is passed over. OSError if it cannot be read.
    """
    for line in lines(path):
        if (iterations is None or line["iteration"] in iterations) and (logged := _logged(line)) is not None:
            yield logged


def _logged(line: Line) -> Logged | None:
    given = {name: line.get(name) for name in TYPES}
    match = line.get("exact_match")
    if not all(type(given[name]) is kind for name, kind in TYPES.items()) or given["finish_reason"] not in REASONS:
        return None
    return Logged(
        iteration=line["iteration"],
        answer=Answer(**given),  # type: ignore[arg-type]
        is_compared="exact_match" in line,
        is_match=match if isinstance(match, bool) else None,
    )
