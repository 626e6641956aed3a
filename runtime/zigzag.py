"""How context parallelism cuts a sequence.

The sequence is cut into 2·n equal chunks and rank r of n takes chunks r and 2n-1-r: an early one that attends to
little and a late one that attends to much, so that causal attention costs every rank the same.
"""

import torch


def own_slices(whole: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """What `rank` of `size` holds of [b, s, ...], cut along s: [b, s / size, ...]. Waits for no transfer to a GPU."""
    length = whole.shape[1]
    if length % (2 * size):
        raise ValueError(f"a sequence of {length} tokens cannot be cut into 2 * {size} equal chunks")
    chunk = length // (2 * size)
    return torch.cat([whole.narrow(1, number * chunk, chunk) for number in chunks_of(rank, size)], dim=1)


def chunks_of(rank: int, size: int) -> tuple[int, int]:
    """The two chunks of `rank`, in the order in which it holds them."""
    return rank, 2 * size - 1 - rank


def in_order(gathered: torch.Tensor) -> torch.Tensor:
    """Put what the ranks hold back into sequence order: [n, s, ...] (rank, its tokens) → [n·s, ...]."""
    size, share = gathered.shape[:2]
    halves = gathered.view(size, 2, share // 2, *gathered.shape[2:])
    return torch.cat([halves[:, 0], halves[:, 1].flip(0)]).reshape(size * share, *gathered.shape[2:])
