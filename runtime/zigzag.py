"""How context parallelism cuts a sequence.

The sequence is cut into 2·n equal chunks and rank r of n takes chunks r and 2n-1-r: an early one that attends to
little and a late one that attends to much, so that causal attention costs every rank the same.
"""

import torch


def positions_of(rank: int, size: int, length: int) -> torch.Tensor:
    """Positions [length / size] int64 in the whole sequence of the tokens that `rank` of `size` holds."""
    if length % (2 * size):
        raise ValueError(f"a sequence of {length} tokens cannot be cut into 2 * {size} equal chunks")
    chunk = length // (2 * size)
    steps = torch.arange(chunk)
    return torch.cat([steps + first * chunk for first in chunks_of(rank, size)])


def chunks_of(rank: int, size: int) -> tuple[int, int]:
    """The two chunks of `rank`, in the order in which it holds them."""
    return rank, 2 * size - 1 - rank


def in_order(gathered: torch.Tensor) -> torch.Tensor:
    """Put what the ranks hold back into sequence order: [n, s, ...] (rank, its tokens) → [n·s, ...]."""
    size, share = gathered.shape[:2]
    halves = gathered.view(size, 2, share // 2, *gathered.shape[2:])
    return torch.cat([halves[:, 0], halves[:, 1].flip(0)]).reshape(size * share, *gathered.shape[2:])
