"""A row's tokens and mask as a sample: ended, and cut to the sequence length."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .rows import RowError
from .settings import OnOverlong
from .tally import Tally
from .tokens import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`ids` and `mask` have the same length; mask[i] = 1 means that ids[i] is trained on as a label.

    `content` is a digest of what the row says, in 64 bits: the same whatever it is rendered and tokenised with. `file`
    and `line` are where it was read, `way` is how its mask was proven.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.uint8]
    content: int
    file: Path | str
    line: int
    way: str
    lost_reasoning: int = 0


def framed(ids: list[int], tokenizer: TextTokenizer) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Plain text, which no template ends: an end token is added, and a begin token if the tokenizer asks."""
    before = [tokenizer.bos_id] if tokenizer.config.get("add_bos_token") and tokenizer.bos_id is not None else []
    after = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    whole = [*before, *ids, *after]
    return np.array(whole, dtype=np.int32), np.ones(len(whole), dtype=np.uint8)


def fit(sample: Sample, tally: Tally, seq_length: int, on_overlong: OnOverlong) -> Sample | None:
    """The sample, cut if need be; None if it is left out. RowError if nothing in it is trained on."""
    most = seq_length + 1
    surplus = len(sample.ids) - most
    tally.longest = max(tally.longest, len(sample.ids))
    if surplus > 0:
        match on_overlong:
            case "error":
                problem = (
                    f"{len(sample.ids):,} tokens make {most - 1 + surplus:,} positions; seq_length is {most - 1:,}"
                )
                tally.overlong.add(sample.line, RowError("overlong", problem), str(sample.file))
                return None
            case "drop":
                tally.dropped["overlong"] += 1
                return None
            case "truncate_left":
                sample = replace(sample, ids=sample.ids[surplus:], mask=sample.mask[surplus:])
            case "truncate_right":
                sample = replace(sample, ids=sample.ids[:most], mask=sample.mask[:most])
    # The first token is never a label.
    if not sample.mask[1:].any():
        cut = f"after {on_overlong} by {surplus:,}, " if surplus > 0 else ""
        raise RowError("nothing-to-train", f"{cut}no token is trained on")
    if surplus > 0:
        tally.truncated += 1
        tally.tokens_cut += surplus
    return sample
