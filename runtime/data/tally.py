"""What happened to the rows of one source in one split, in numbers, and of a split as a whole."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .rows import SHOWN, BadRows

if TYPE_CHECKING:
    from .fit import Sample


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts and, per kept row, its length, its supervised tokens (those that are a label) and its content's digest."""

    bad: BadRows
    overlong: BadRows
    rows: int = 0
    # Rows by the recipe lines that would read them, for those that plainly have another format.
    others: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    tokens_cut: int = 0
    lost_reasoning: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    lengths: array[int] = field(default_factory=lambda: array("i"))
    supervised: array[int] = field(default_factory=lambda: array("i"))
    contents: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def kept(self) -> int:
        return len(self.lengths)

    def keep(self, sample: "Sample") -> None:
        """Count a row that is trained or evaluated on."""
        self.ways[sample.way] += 1
        self.lost_reasoning += sample.lost_reasoning
        self.lengths.append(len(sample.ids))
        self.supervised.append(int(np.count_nonzero(sample.mask[1:])))
        self.contents.append(sample.content)

    def absorb(self, part: "Tally") -> None:
        """Add what `part` has counted, as what comes next."""
        for whole, one in ((self.bad, part.bad), (self.overlong, part.overlong)):
            whole.counts += one.counts
            whole.shown += one.shown[: SHOWN - len(whole.shown)]
        for name in ("rows", "truncated", "tokens_cut", "lost_reasoning"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        self.longest = max(self.longest, part.longest)
        self.dropped += part.dropped
        self.ways += part.ways
        for kind, count in part.others.items():
            if kind in self.others or len(self.others) < 2:
                self.others[kind] += count
        for name in ("lengths", "supervised", "contents"):
            getattr(self, name).extend(getattr(part, name))

    def summary(self) -> dict[str, Any]:
        """For `data.json`: plain numbers, in a fixed order."""
        lengths, supervised = np.array(self.lengths, np.int64), np.array(self.supervised, np.int64)
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": dict(sorted((self.dropped + self.bad.counts).items())),
            "truncated": self.truncated,
            "tokens_cut": self.tokens_cut,
            "duplicates": self.kept - len(np.unique(np.array(self.contents, np.uint64))),
            "messages_without_their_reasoning": self.lost_reasoning,
            "proven_by": dict(sorted(self.ways.items())),
            "tokens": int(lengths.sum()),
            "supervised_tokens": int(supervised.sum()),
            "length": _spread(lengths),
            # A sample of n tokens has n - 1 labels.
            "supervised_share": _spread(supervised / np.maximum(lengths - 1, 1), digits=4),
            "length_histogram": _histogram(lengths),
            "first_bad_rows": self.bad.shown,
        }


def _spread(values: NDArray[Any], digits: int = 1) -> dict[str, float]:
    if not len(values):
        return {}
    median, p95 = np.percentile(values, [50, 95])
    figures = {"min": values.min(), "mean": values.mean(), "median": median, "p95": p95, "max": values.max()}
    return {name: round(float(value), digits) for name, value in figures.items()}


def _histogram(lengths: NDArray[np.int64]) -> list[list[int]]:
    """Pairs of an upper bound, a power of two, and the number of lengths up to it and above the bound before."""
    if not len(lengths):
        return []
    powers = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
    return [[2**power, int(count)] for power, count in enumerate(np.bincount(powers)) if count]
