"""Where the tensors of a Hugging Face model lie in Megatron's, and in the slice of it that one rank holds.

Only arithmetic: a cut of rank 0 of 1 is the whole tensor, which is also how it lies in a checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .sizes import Sizes
from .tables import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Entries `start` to `stop` of part `part`, along the axis of its cut; part None is padding with zeros."""

    part: int | None
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The pieces of a slice in the order in which they lie in it, one behind the other along `axis`."""

    axis: int
    pieces: tuple[Piece, ...]

    @property
    def length(self) -> int:
        return sum(piece.length for piece in self.pieces)


def cut(row: Row, sizes: Sizes, *, rank: int = 0, size: int = 1, padded_vocab: int | None = None) -> Cut:
    """What rank `rank` of `size` tensor-parallel ones holds of a tensor.

    padded_vocab: rows of the embedding over all ranks, not set: no padding. An expert's ranks are those of its own
    tensor-parallel group.
    """
    length = [shape_of(row, part, sizes) for part in range(len(row.parts))]
    match row.layout:
        case "whole":
            return Cut(axis=0, pieces=(Piece(part=0, start=0, stop=length[0][0]),))
        case "columns":
            start, stop = _share(length[0][1], rank, size)
            return Cut(axis=1, pieces=(Piece(part=0, start=start, stop=stop),))
        case "halves":
            start, stop = _share(length[0][0], rank, size)
            return Cut(axis=0, pieces=tuple(Piece(part=part, start=start, stop=stop) for part in range(2)))
        case "vocabulary":
            whole: tuple[Piece, ...] = (Piece(part=0, start=0, stop=sizes.vocab),)
            padding = (padded_vocab or sizes.vocab) - sizes.vocab
            if padding:
                whole += (Piece(part=None, start=0, stop=padding),)
        case "groups":
            whole = tuple(_interleaved(sizes))
    start, stop = _share(sum(piece.length for piece in whole), rank, size)
    return Cut(axis=0, pieces=tuple(_window(whole, start, stop)))


def shape_of(row: Row, part: int, sizes: Sizes) -> tuple[int, ...]:
    """The shape of a Hugging Face tensor."""
    return tuple(getattr(sizes, word) for word in row.parts[part][1])


def _interleaved(sizes: Sizes) -> Iterator[Piece]:
    """For each group of heads its queries, its key and its value."""
    queries = sizes.heads // sizes.groups * sizes.head
    for group in range(sizes.groups):
        yield Piece(part=0, start=group * queries, stop=(group + 1) * queries)
        for part in (1, 2):
            yield Piece(part=part, start=group * sizes.head, stop=(group + 1) * sizes.head)


def _share(length: int, rank: int, size: int) -> tuple[int, int]:
    assert length % size == 0, "the compiler's rules see to it"
    return length // size * rank, length // size * (rank + 1)


def _window(pieces: tuple[Piece, ...], start: int, stop: int) -> Iterator[Piece]:
    """The part of `pieces` between `start` and `stop`, counted over all of them."""
    offset = 0
    for piece in pieces:
        low, high = max(start, offset), min(stop, offset + piece.length)
        if low < high:
            yield Piece(part=piece.part, start=piece.start + low - offset, stop=piece.start + high - offset)
        offset += piece.length
