"""What the model answered to one conversation."""

from dataclasses import dataclass
from typing import Literal

FILE = "answers.jsonl"
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
