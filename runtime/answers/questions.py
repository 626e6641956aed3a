"""The conversations that the model is asked to answer: prepared validation rows, cut before their last answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import PreparedData
from ..data.indexed import IndexedReader
from ..errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Validation row number `row`: `tokens` and `mask` as prepared; the prompt is tokens[:start], what is trained on
    behind it tokens[start:end].
    """

    row: int
    tokens: NDArray[np.int64]
    mask: NDArray[np.uint8]
    start: int
    end: int

    @property
    def prompt(self) -> list[int]:
        return self.tokens[: self.start].tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """`stops` are the tokens that end an answer; `cut` rows have a reference without an end and are passed over, and so
    are `full` ones, whose prompt takes all positions of the model.
    """

    asked: tuple[Question, ...]
    stops: frozenset[int]
    cut: int
    full: int

    @property
    def notes(self) -> Iterator[str]:
        if self.cut:
            yield f"{self.cut} of the conversations to be answered were cut at the sequence length and are passed over"
        if self.full:
            yield f"{self.full} of the conversations to be answered leave no room for an answer and are passed over"


def find_questions(
    data: PreparedData, stops: frozenset[int], special: frozenset[int], *, samples: int, positions: int
) -> Questions:
    """`samples` rows taken evenly from the whole validation data, always the same ones; all, if there are no more.

    stops: ids that end a turn; special: ids of all special tokens, of which those that end a reference end an answer
    too; positions: how many tokens the model can see. UserError if there is none that can be asked.
    """
    if not data.rows("valid"):
        raise UserError(f"there are no valid rows in `{data.store}`", "set `data.valid_data_path`")
    tokens, masks = (IndexedReader(data.store / f"valid.{kind}") for kind in ("tokens", "mask"))
    count = len(tokens)
    rows = range(count) if samples >= count else [at * count // samples for at in range(samples)]
    asked, cut, full = [], 0, 0
    for row in rows:
        found = _question(row, tokens[row], masks[row])
        last = None if found is None else int(found.tokens[found.end - 1])
        if found is None or last not in stops | special:
            cut += 1
        elif found.start >= positions:
            full += 1
        else:
            asked.append(found)
    ends = stops | {int(one.tokens[one.end - 1]) for one in asked}
    questions = Questions(asked=tuple(asked), stops=ends, cut=cut, full=full)
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
