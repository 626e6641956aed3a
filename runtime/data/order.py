"""The order of samples: seeded, endless, and a function of the index alone, so that a resumed run goes on where it was.

Which samples make up a global batch does not depend on the ranks; how they lie in it does. Megatron's data loader
(`--dataloader-type single`) hands micro-batch m of a global batch to data-parallel rank m % DP, and with it the samples
[m * micro_batch_size, (m + 1) * micro_batch_size) of the batch. `arrange` puts rows of like work into a micro-batch,
where they need little padding, and gives all ranks like sums.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError


class Order(Protocol):
    """Sample numbers by index, for every index from 0 on."""

    def __getitem__(self, index: int, /) -> int: ...


class Shuffled:
    """Each epoch is a permutation of its own of `count` numbers, drawn from PCG64 with the entropy [*seed, epoch]."""

    def __init__(self, count: int, *seed: int) -> None:
        self.count = count
        self._seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)

    def __getitem__(self, index: int) -> int:
        epoch, place = divmod(index, self.count)
        if epoch != self._epoch:
            self._order = np.random.Generator(np.random.PCG64([*self._seed, epoch])).permutation(self.count)
            self._epoch = epoch
        return int(self._order[place])


class Blended:
    """Samples of several sources, in shares.

    An epoch has as many samples as the sources together, and each source has a quota of them, its share by largest
    remainder, at places that are shuffled per epoch. The j-th sample ever taken from a source is number j of its own
    endless permutations, so that all samples of a source are seen equally often, but for one time.
    """

    def __init__(self, counts: Sequence[int], weights: Sequence[float], seed: int) -> None:
        assert len(counts) == len(weights)
        self.counts = list(counts)
        self.quotas = _quotas(sum(counts), weights)
        if 0 in self.quotas:
            number = self.quotas.index(0)
            raise UserError(
                f"`data.sources[{number}].weight` {weights[number]:g} is too small: of {sum(counts):,} samples in an "
                "epoch it gets none",
                "give it a larger weight, or leave the source out",
            )
        self._seed = seed
        self._firsts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        # The last number keeps these draws apart from those of `_epoch_of`.
        self._sources = [Shuffled(count, seed, number, 1) for number, count in enumerate(self.counts)]
        self._epoch = -1
        self._source_of: NDArray[np.int64] = np.zeros(0, np.int64)
        self._turn_of: NDArray[np.int64] = np.zeros(0, np.int64)

    def __getitem__(self, index: int) -> int:
        epoch, place = divmod(index, sum(self.counts))
        if epoch != self._epoch:
            self._begin(epoch)
        source = int(self._source_of[place])
        turn = epoch * self.quotas[source] + int(self._turn_of[place])
        return int(self._firsts[source]) + self._sources[source][turn]

    def _begin(self, epoch: int) -> None:
        table = np.repeat(np.arange(len(self.quotas)), self.quotas)
        self._source_of = np.random.Generator(np.random.PCG64([self._seed, epoch])).permutation(table)
        self._turn_of = np.empty(len(table), np.int64)
        for source, quota in enumerate(self.quotas):
            self._turn_of[self._source_of == source] = np.arange(quota)
        self._epoch = epoch


def arrange(
    samples: Sequence[int], work: Callable[[int], int], micro_batch_size: int, data_parallel_size: int
) -> list[int]:
    """`samples` of a global batch so that the ranks get like work, each its most first.

    Sorted by work they are cut into micro-batches; then the largest that is left goes, again and again, to the rank
    with the least work of those that need more micro-batches. The sums of two ranks differ by no more than the work of
    the largest micro-batch.
    """
    cost = {sample: work(sample) for sample in set(samples)}
    ordered = sorted(samples, key=cost.__getitem__, reverse=True)
    micro_batches = [ordered[at : at + micro_batch_size] for at in range(0, len(ordered), micro_batch_size)]
    steps = len(micro_batches) // data_parallel_size
    sums = [0] * data_parallel_size
    ranks: list[list[list[int]]] = [[] for _ in sums]
    for micro_batch in micro_batches:
        rank = min((at for at in range(len(sums)) if len(ranks[at]) < steps), key=sums.__getitem__)
        ranks[rank].append(micro_batch)
        sums[rank] += sum(cost[sample] for sample in micro_batch)
    return [sample for step in zip(*ranks, strict=True) for micro_batch in step for sample in micro_batch]


def _quotas(total: int, weights: Sequence[float]) -> list[int]:
    """Whole parts of `total` in the shares of `weights`; they add up to it."""
    exact = np.array(weights, np.float64) / sum(weights) * total
    parts = np.floor(exact).astype(np.int64)
    for number in np.argsort(parts - exact, kind="stable")[: total - int(parts.sum())]:
        parts[number] += 1
    return [int(part) for part in parts]
