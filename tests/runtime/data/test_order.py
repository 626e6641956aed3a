"""The order of samples: which belong together, and how the work is spread over data-parallel ranks."""

import numpy as np
import pytest

from sftc.runtime.data.order import Blended, Shuffled, arrange


def test_a_permutation_per_epoch() -> None:
    order = Shuffled(50, 7)
    epochs = [[order[epoch * 50 + place] for place in range(50)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [Shuffled(50, 7)[index] for index in (149, 0)] == [epochs[2][49], epochs[0][0]]
    assert [Shuffled(50, 8)[place] for place in range(50)] != epochs[0]


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.7, 0.2, 0.1), (5, 1, 3)])
def test_a_blend_keeps_its_shares_and_sees_all_samples_of_a_source_equally_often(weights: tuple[float, ...]) -> None:
    counts = (40, 11, 7)
    order = Blended(counts, weights, 3)
    assert sum(order.quotas) == sum(counts)
    assert all(abs(q - w / sum(weights) * 58) < 1 for q, w in zip(order.quotas, weights, strict=True))
    taken = [order[index] for index in range(58 * 6)]
    ends = np.cumsum((0, *counts))
    for first, end, quota in zip(ends, ends[1:], order.quotas, strict=False):
        seen = [taken.count(number) for number in range(first, end)]
        assert sum(seen) == 6 * quota
        assert max(seen) - min(seen) <= 1
    # A function of seed and index alone, from whichever side it is asked.
    assert [Blended(counts, weights, 3)[index] for index in (300, 5, 100)] == [taken[300], taken[5], taken[100]]
    assert [Blended(counts, weights, 4)[index] for index in range(58)] != taken[:58]


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("micro", [1, 2])
def test_ranks_get_like_work(ranks: int, micro: int) -> None:
    """Micro-batch m goes to rank m % ranks, as Megatron's sampler does it."""
    from megatron.training.datasets.data_samplers import MegatronPretrainingSampler

    size, batches = 64, 5
    work = np.random.default_rng(2).lognormal(12, 0.8, size * batches).astype(np.int64)
    order = [
        number
        for batch in range(batches)
        for number in arrange(range(batch * size, (batch + 1) * size), lambda at: int(work[at]), micro, ranks)
    ]
    sums = {}
    for name, numbers in (("arranged", order), ("as they come", list(range(size * batches)))):
        sums[name] = np.zeros((ranks, batches))
        for rank in range(ranks):
            sampler = MegatronPretrainingSampler(size * batches, 0, micro, rank, ranks)
            taken = [numbers[index] for micro_batch in sampler for index in micro_batch]
            per_batch = size // ranks
            for batch in range(batches):
                chosen = taken[batch * per_batch : (batch + 1) * per_batch]
                assert all(batch * size <= number < (batch + 1) * size for number in chosen)
                sums[name][rank, batch] = work[chosen].sum()
    spread = {name: found.max(axis=0) - found.min(axis=0) for name, found in sums.items()}
    for batch in range(batches):
        largest = np.sort(work[batch * size : (batch + 1) * size])[-micro:].sum()
        assert spread["arranged"][batch] <= largest
    balance = {name: float((found.max(axis=0) / found.mean(axis=0)).mean()) for name, found in sums.items()}
    # Rows of like length in a micro-batch, which need less padding, leave less to balance with.
    assert balance["arranged"] < 1 + (balance["as they come"] - 1) / (4 if micro == 1 else 1.3), balance
