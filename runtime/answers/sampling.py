"""Which token comes next."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch


class Sampling(Protocol):
    """`temperature` 0 is greedy; `top_k` and `top_p` leave out what is less likely, None leaves out nothing."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int | None: ...
    @property
    def top_p(self) -> float | None: ...


def draws_of(seed: int, row: int) -> np.random.Generator:
    """The random numbers of one conversation: the same in whatever batch and on whatever rank it is answered."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, row]))


def choose(logits: torch.Tensor, sampling: Sampling, numbers: Sequence[float]) -> torch.Tensor:
    """The next tokens [b] int64 by `logits` [b, vocabulary]: the likeliest, or drawn with the random number of the row,
    uniform in [0, 1).

    `top_k` comes first and `top_p` (the smallest set of tokens that has this probability, Holtzman et al. 2020) after
    it, both at the temperature asked for, as in transformers.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    values, order = torch.sort(logits.float() / sampling.temperature, dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        values[:, sampling.top_k :] = -torch.inf
    chances = torch.softmax(values, dim=-1)
    if sampling.top_p is not None:
        before = chances.cumsum(dim=-1) - chances
        chances = torch.where(before < sampling.top_p, chances, 0.0)
    sums = chances.double().cumsum(dim=-1)
    at = torch.tensor(numbers, dtype=torch.float64, device=logits.device).unsqueeze(1)
    # A number below 1 times the sum: never past the last token that has a chance
    place = torch.searchsorted(sums, at * sums[:, -1:], right=True)
    last = (chances > 0).sum(dim=-1, keepdim=True) - 1
    # Where a model that has diverged gives no numbers, no token has a chance, and its answers are told all the same.
    return order.gather(1, torch.minimum(place, last).clamp(min=0)).squeeze(1)
