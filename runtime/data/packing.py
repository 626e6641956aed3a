"""Which documents share a sample: a pack plan made from their lengths alone, and the sample that comes of it.

Global best-fit-decreasing: documents from the longest to the shortest, each into the fullest pack that still takes it,
else into a new one. Documents of one length are placed together, and so are packs with the same space left, which
makes the work grow with the number of different lengths instead of the number of documents.

A plan is stored in Megatron's indexed format: pack i is the list of its documents' rows, in ascending order.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .indexed import IndexedWriter

type Document = tuple[NDArray[Any], NDArray[Any]]


def plan_packs(lengths: NDArray[np.int64], capacity: int) -> list[NDArray[np.int64]]:
    """Documents of `lengths` positions in packs of `capacity`: the indices in each pack. The same for the same lengths.

    ValueError for a length below 1 or above the capacity.
    """
    if not len(lengths):
        return []
    if not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} do not fit packs of 1 to {capacity}")
    order = np.argsort(-lengths, kind="stable")
    pack_of = np.empty(len(lengths), np.int64)
    packs = _OpenPacks(capacity)
    starts = np.flatnonzero(np.diff(lengths[order], prepend=0))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        for documents, numbers in packs.place(order[start:end], int(lengths[order[start]])):
            pack_of[documents] = numbers
    by_pack = np.argsort(pack_of, kind="stable")
    return np.split(by_pack, np.cumsum(np.bincount(pack_of))[:-1])


class _OpenPacks:
    """Packs by the space that they have left; the number of a pack is the order in which it was opened."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.opened = 0
        self._spaces: list[int] = []  # sorted, without the empty ones
        self._packs: dict[int, NDArray[np.int64]] = {}

    def place(self, documents: NDArray[np.int64], length: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Place documents of one length; yields some of them at a time, with the number of the pack of each.

        A pack that was the best fit for one of them stays the best fit for the next until it takes no more.
        """
        while len(documents):
            space, packs = self._fullest(length, len(documents))
            each = space // length
            count = min(len(packs), -(-len(documents) // each))
            filled, rest = packs[:count], packs[count:]
            self._leave(space, rest)
            here, documents = documents[: count * each], documents[count * each :]
            yield here, np.repeat(filled, each)[: len(here)]
            last = len(here) - (count - 1) * each
            whole = count if last == each else count - 1
            self._leave(space - each * length, filled[:whole])
            self._leave(space - last * length, filled[whole:])

    def _fullest(self, length: int, count: int) -> tuple[int, NDArray[np.int64]]:
        """The packs with the least space that takes `length`, or as many new ones as `count` documents need."""
        at = bisect_left(self._spaces, length)
        if at < len(self._spaces):
            space = self._spaces.pop(at)
            return space, self._packs.pop(space)
        needed = -(-count // (self.capacity // length))
        self.opened += needed
        return self.capacity, np.arange(self.opened - needed, self.opened)

    def _leave(self, space: int, packs: NDArray[np.int64]) -> None:
        if not space or not len(packs):
            return
        if space in self._packs:
            packs = np.concatenate([self._packs[space], packs])
        else:
            insort(self._spaces, space)
        self._packs[space] = packs


def padded(lengths: NDArray[Any], multiple: int) -> NDArray[Any]:
    """`lengths`, each rounded up to a multiple of `multiple`."""
    return -(-lengths // multiple) * multiple


def write_packs(
    prefix: Path, groups: Sequence[Sequence[int]], seq_length: int, multiple: int
) -> tuple[dict[str, Any], list[int]]:
    """Plan packs of `seq_length` positions and write them to `prefix`; returns the figures for `data.json`, and how
    many packs each group has.

    groups: the number of tokens of each row, one more than its positions; the rows of one group, which come after those
    of the group before, share no pack with those of another. multiple: what each document is padded to.
    """
    digest = hashlib.sha256()
    counts: list[int] = []
    first = used = fullest = 0
    with IndexedWriter(prefix, np.dtype(np.int32)) as writer:
        for group in groups:
            lengths = np.array(group, np.int64) - 1
            packs = plan_packs(padded(lengths, multiple), seq_length)
            for pack in packs:
                rows = pack + first
                writer.add(rows)
                digest.update(len(rows).to_bytes(4, "little") + rows.astype("<i4").tobytes())
            counts.append(len(packs))
            first, used = first + len(lengths), used + int(lengths.sum())
            fullest = max([fullest, *(len(pack) for pack in packs)])
    figures = {
        "packs": sum(counts),
        "positions": seq_length,
        "multiple": multiple,
        # of all positions of all packs, those that hold a token of a row
        "use": round(used / (sum(counts) * seq_length), 6),
        "documents_in_fullest": fullest,
        "sha256": digest.hexdigest(),
    }
    return figures, counts


def lay_out(
    documents: Sequence[Document], *, seq_length: int, multiple: int, pad_id: int, borders: int
) -> dict[str, NDArray[Any]]:
    """One sample: documents (tokens and mask) one after the other, each shifted by itself and padded to `multiple`.

    Returns tokens, labels, position_ids int64 [s] and loss_mask float32 [s], as `dataset` describes them, with
    positions that begin anew in each document; and cu_seqlens int32 [borders], where segments begin and end. What is
    left of the sample is the last segment. The end is repeated until there are `borders` of them. The last token of
    a document is a label only, so that no label lies in another document.
    """
    inputs = np.full(seq_length, pad_id, np.int64)
    labels = inputs.copy()
    positions = np.zeros(seq_length, np.int64)
    loss_mask = np.zeros(seq_length, np.float32)
    cu_seqlens = np.full(borders, seq_length, np.int32)
    cu_seqlens[0] = start = 0
    for number, (tokens, mask) in enumerate(documents):
        end, next_start = start + len(tokens) - 1, start + int(padded(np.array(len(tokens) - 1), multiple))
        inputs[start:end], labels[start:end], loss_mask[start:end] = tokens[:-1], tokens[1:], mask[1:]
        positions[start:next_start] = np.arange(next_start - start)
        cu_seqlens[number + 1] = start = next_start
    positions[start:] = np.arange(seq_length - start)
    return {
        "tokens": inputs,
        "labels": labels,
        "loss_mask": loss_mask,
        "position_ids": positions,
        "cu_seqlens": cu_seqlens,
    }
