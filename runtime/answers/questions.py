"""The conversations that the model is asked to answer: prepared validation rows, cut before their last answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.indexed import IndexedReader
from ..errors import UserError


class Stored(Protocol):
    """A directory of the store with what its `data.json` says, as preparation has made it or as a run finds it."""

    @property
    def store(self) -> Path: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...
    def rows(self, split: str, /) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Validation row number `row`: `tokens` and `mask` as prepared; the prompt is tokens[:start], what is trained on
    behind it tokens[start:end], of which the last one ends the turn.
    """

    row: int
    tokens: NDArray[np.int64]
    mask: NDArray[np.uint8]
    start: int
    end: int

    @property
    def prompt(self) -> list[int]:
        return self.tokens[: self.start].tolist()  # type: ignore[no-any-return]

    @property
    def last(self) -> int:
        return int(self.tokens[self.end - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """`stops` are tokens that end every answer. `cut` rows have a reference without an end and are passed over, and so
    are `full` ones, whose prompt takes all positions of the model.
    """

    asked: tuple[Question, ...]
    stops: frozenset[int]
    cut: int
    full: int

    def ends(self, question: Question) -> frozenset[int]:
        """What ends an answer to `question`: its own reference may end with another special token than most. What other
        rows end with counts for nothing, so that an answer does not depend on which rows are asked.
        """
        return self.stops | {question.last}

    @property
    def notes(self) -> Iterator[str]:
        if self.cut:
            yield f"{self.cut} of the conversations to be answered were cut at the sequence length and are passed over"
        if self.full:
            yield f"{self.full} of the conversations to be answered leave no room for an answer and are passed over"


def find_questions(
    data: Stored, stops: frozenset[int], special: frozenset[int], *, samples: int, positions: int
) -> Questions:
    """`samples` rows taken evenly from the whole validation data, always the same ones; all, if there are no more.

    stops: ids that end a turn; special: ids of all special tokens, which may end a reference too, if it is not one that
    fills the sequence; positions: how many tokens the model can see. UserError if there is none that can be asked.
    """
    if not data.rows("valid"):
        raise UserError(f"there are no valid rows in `{data.store}`", "set `data.valid_data_path`")
    tokens, masks = (IndexedReader(data.store / f"valid.{kind}") for kind in ("tokens", "mask"))
    count = len(tokens)
    rows = range(count) if samples >= count else [at * count // samples for at in range(samples)]
    length = int(data.summary["settings"]["seq_length"])
    asked, cut, full = [], 0, 0
    for row in rows:
        found = _question(row, tokens[row], masks[row])
        if found is None or not (found.last in stops or (found.last in special and found.end <= length)):
            cut += 1
        elif found.start >= positions:
            full += 1
        else:
            asked.append(found)
    questions = Questions(asked=tuple(asked), stops=stops, cut=cut, full=full)
    if not asked:
        raise UserError(
            f"none of {len(rows)} validation rows can be asked: " + "; ".join(questions.notes),
            "see `data.on_overlong`, `train.seq_length` and `eval.generate`",
        )
    return questions


def _question(row: int, tokens: NDArray[Any], mask: NDArray[Any]) -> Question | None:
    trained = np.flatnonzero(mask)
    if not len(trained):
        return None
    end = int(trained[-1]) + 1
    before = np.flatnonzero(mask[:end] == 0)
    start = int(before[-1]) + 1 if len(before) else 0
    if start == 0:  # without a prompt there is nothing to ask
        return None
    return Question(row=row, tokens=tokens.astype(np.int64), mask=mask.astype(np.uint8), start=start, end=end)
