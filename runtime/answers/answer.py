"""What the model answered, and how that is rated."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

FILE = "answers.jsonl"
DEFINITIONS = "scores.json"  # how each score is defined
# What the figures of an evaluation are called, with `valid_` before them in metrics.jsonl.
METRICS = (
    *("exact_match", "token_accuracy", "perplexity", "bleu", "chrf", "rouge1", "rouge2", "rougeL"),
    *("answers", "unfinished", "loss"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`row` is the number of the validation row; `question` is the last message before the answer, as far as the chat
    template lets it be told from its own words, else the end of `prompt`; `reference` and `answer` are without the end
    of the turn; `tokens` counts those that were generated, the end of the turn included. `finish_reason` is `stop`, or
    `length` where the limit came first.
    """

    row: int
    question: str
    prompt: str
    reference: str
    answer: str
    finish_reason: Literal["stop", "length"]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """`loss` is the mean cross entropy of what is trained on in the rows; `values` are the scores by name, and
    `definitions` how they are defined. `matches` says of each answer whether it is the reference's, None where that
    cannot be said, and is None where nobody asked. `notes` are what to know about it all.
    """

    loss: float
    answers: Sequence[Answer]
    matches: Sequence[bool | None] | None
    values: Mapping[str, float | None]
    definitions: Mapping[str, str]
    notes: Sequence[str]


def described(answers: Sequence[Answer], matches: Sequence[bool | None] | None) -> list[dict[str, Any]]:
    """As JSON data; `exact_match` is only there where it was asked for."""
    found = [asdict(answer) for answer in answers]
    return (
        found if matches is None else [{**one, "exact_match": match} for one, match in zip(found, matches, strict=True)]
    )
