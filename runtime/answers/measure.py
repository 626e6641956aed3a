"""How the model rates the references: what it would have said at each token of them, given those before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..megatron.inference import Asked
from .questions import Question

MOST = 700.0  # exp() of more overflows
AT_ONCE = 1024  # tokens whose logits are looked at together, in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`loss`: mean cross entropy of the `tokens` that are trained on; `accuracy`: the share of them that is the
    likeliest token.
    """

    loss: float
    accuracy: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that is too large for a number, and none where the loss is none."""
        return math.inf if self.loss >= MOST else math.exp(self.loss)


def measure(asked: Asked, questions: Sequence[Question], *, capacity: int) -> Measured | None:
    """Over all that is trained on in the rows, shifted as in training. None on ranks that do not know the logits.

    capacity: positions in a batch, at least those of one row. All ranks at once.
    """
    order = sorted(range(len(questions)), key=lambda at: (len(questions[at].tokens), at))
    sums = torch.zeros(3, dtype=torch.float64, device=asked.device)
    while order:
        longest = len(questions[order[-1]].tokens) - 1
        rows = max(capacity // longest, 1)
        now = order[-rows * asked.copies :]
        order = order[: -len(now)]
        share = -(-len(now) // asked.copies)
        sums += _sums(asked, [questions[at] for at in now[asked.copy :: asked.copies]], share, longest)
    if not asked.knows:
        return None
    torch.distributed.all_reduce(sums, group=asked.copies_group)
    loss, right, count = sums.tolist()
    return Measured(loss=loss / count, accuracy=right / count, tokens=int(count))


def _sums(asked: Asked, questions: Sequence[Question], rows: int, length: int) -> torch.Tensor:
    """Of the cross entropies, of the tokens that are the likeliest, and of those that count. [3] float64"""
    inputs = torch.zeros(rows, length, dtype=torch.int64)
    labels, counts = torch.zeros_like(inputs), torch.zeros(rows, length, dtype=torch.bool)
    for row, question in enumerate(questions):
        end = len(question.tokens) - 1
        inputs[row, :end] = torch.from_numpy(question.tokens[:-1])
        labels[row, :end] = torch.from_numpy(question.tokens[1:])
        counts[row, :end] = torch.from_numpy(question.mask[1:] != 0)
    logits = asked.logits(inputs.to(asked.device), asked.cache(rows, length, every_logit=True))
    sums = torch.zeros(3, dtype=torch.float64, device=asked.device)
    if logits is None:
        return sums
    counts = counts.to(asked.device)
    wanted, said = labels.to(asked.device)[counts], logits[counts]
    for own, right in zip(torch.split(said, AT_ONCE), torch.split(wanted, AT_ONCE), strict=True):
        losses = torch.nn.functional.cross_entropy(own.float(), right, reduction="none")
        hits = own.argmax(dim=-1) == right
        sums += torch.stack([losses.double().sum(), hits.double().sum(), losses.new_tensor(len(own)).double()])
    return sums
