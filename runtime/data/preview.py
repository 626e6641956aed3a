"""Prepared samples as people look at them: token by token, each with its text and whether the loss is taken on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .indexed import IndexedReader
from .tokens import TextTokenizer

# A character is at most four bytes, and a token at least one.
LONGEST_PIECE = 4
BROKEN = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """`text` is what the token adds to the decoded text. Where several tokens spell one character together, the first
    has the text, and `part` of `parts` counts them.
    """

    id: int
    text: str
    trained: bool
    special: bool
    part: int = 1
    parts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Sample number `row`, counted from 1, of a split."""

    split: str
    row: int
    tokens: tuple[Token, ...]

    @property
    def labels(self) -> int:
        """The first token is never a label."""
        return len(self.tokens) - 1

    @property
    def trained(self) -> int:
        return sum(token.trained for token in self.tokens)

    @property
    def headline(self) -> str:
        share = f"{self.trained / max(self.labels, 1):.0%}"
        return f"{len(self.tokens):,} tokens, {self.trained:,} of {self.labels:,} labels trained on ({share})"


def read_samples(
    store: Path, summary: Mapping[str, Any], tokenizer: TextTokenizer, split: str, first: int, count: int
) -> list[Shown]:
    """Up to `count` samples of `split` from number `first` (from 1) on. UserError if there is no such sample."""
    if split not in summary["splits"]:
        raise UserError(f"there is no `{split}` data", f"the recipe says nothing in `data.{split}_data_path`")
    tokens, masks = IndexedReader(store / f"{split}.tokens"), IndexedReader(store / f"{split}.mask")
    if not 1 <= first <= len(tokens):
        raise UserError(
            f"there is no sample {first:,} in the {split} data", f"they are numbered from 1 to {len(tokens):,}"
        )
    rows = range(first - 1, min(first - 1 + count, len(tokens)))
    return [
        Shown(split=split, row=row + 1, tokens=tuple(_tokens(tokens[row].tolist(), masks[row].tolist(), tokenizer)))
        for row in rows
    ]


def _tokens(ids: Sequence[int], mask: Sequence[int], tokenizer: TextTokenizer) -> Iterator[Token]:
    at = 0
    for text, parts in _pieces(ids, tokenizer):
        for part in range(1, parts + 1):
            yield Token(
                id=ids[at],
                text=text if part == 1 else "",
                trained=at > 0 and bool(mask[at]),
                special=tokenizer.special.fullmatch(text) is not None,
                part=part,
                parts=parts,
            )
            at += 1


def _pieces(ids: Sequence[int], tokenizer: TextTokenizer) -> Iterator[tuple[str, int]]:
    """The decoded text in the smallest pieces that whole tokens make, with the number of tokens of each.

    Each piece is decoded with the one before it: some decoders treat the first token of a text in a way of their own.
    """
    before = start = 0
    for end in range(1, len(ids) + 1):
        known = tokenizer.decode(ids[before:start])
        text = tokenizer.decode(ids[before:end])[len(known) :]
        # The end of the sample ends a piece, and so does text that is broken for good.
        if text.endswith(BROKEN) and end - start < LONGEST_PIECE and end < len(ids):
            continue
        yield text, end - start
        before, start = start, end
