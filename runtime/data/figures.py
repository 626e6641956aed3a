"""How long the samples of a store are, and how much of each is trained on: histograms with round borders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .indexed import IndexedReader

MOST_BARS = 32
SHARE_BARS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """`counts[i]` values lie in [borders[i], borders[i + 1]); the last bar holds its upper border too."""

    borders: tuple[float, ...]
    counts: tuple[int, ...]

    def to_json(self) -> list[list[float]]:
        """From, to, count."""
        return [[*border, count] for border, count in zip(pairwise(self.borders), self.counts, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The two histograms of one split."""

    lengths: Histogram
    shares: Histogram


def measure(store: Path, splits: Sequence[str]) -> Mapping[str, Figures]:
    """The figures of each split; all splits have the same borders, so that their pictures can be compared."""
    readers = {split: IndexedReader(store / f"{split}.tokens") for split in splits}
    borders = _round_borders(max((int(reader.lengths.max(initial=0)) for reader in readers.values()), default=0))
    return {
        split: Figures(
            lengths=_histogram(reader.lengths, borders),
            shares=_histogram(_shares(store / f"{split}.mask", reader.lengths), np.linspace(0, 1, SHARE_BARS + 1)),
        )
        for split, reader in readers.items()
    }


def _shares(masks: Path, lengths: NDArray[np.int32]) -> NDArray[np.float64]:
    """Supervised labels of each row as a share of its labels. The first token is never a label."""
    reader = IndexedReader(masks)
    trained = (np.count_nonzero(reader[row][1:]) for row in range(len(reader)))
    counts = np.fromiter(trained, np.int64, count=len(reader))
    shares: NDArray[np.float64] = counts / np.maximum(lengths.astype(np.int64) - 1, 1)
    return shares


def _round_borders(longest: int) -> NDArray[np.float64]:
    """From 0 in steps of 1, 2 or 5 times a power of ten, at most MOST_BARS of them, to a border above `longest`."""
    step = next(
        size for power in range(12) for factor in (1, 2, 5) if longest < MOST_BARS * (size := factor * 10**power)
    )
    return np.arange(0, (longest // step + 2) * step, step, dtype=np.float64)


def _histogram(values: NDArray[Any], borders: NDArray[np.float64]) -> Histogram:
    counts, _ = np.histogram(values, borders)
    return Histogram(
        borders=tuple(round(float(border), 4) for border in borders), counts=tuple(int(count) for count in counts)
    )
