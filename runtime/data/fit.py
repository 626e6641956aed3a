"""A row's tokens and mask as a sample: ended, cut to the sequence length, counted."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .mask import Rendered
from .reader import Line
from .rows import RowError
from .settings import OnOverlong
from .tally import Tally
from .tokens import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`ids` and `mask` have the same length; mask[i] = 1 means that ids[i] is trained on as a label."""

    ids: NDArray[np.int32]
    mask: NDArray[np.uint8]


def framed(ids: list[int], tokenizer: TextTokenizer) -> Sample:
    """Plain text, which no template ends: an end token is added, and a begin token if the tokenizer asks."""
    before = [tokenizer.bos_id] if tokenizer.config.get("add_bos_token") and tokenizer.bos_id is not None else []
    after = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    whole = [*before, *ids, *after]
    return Sample(ids=np.array(whole, dtype=np.int32), mask=np.ones(len(whole), dtype=np.uint8))


def fit(sample: Sample, line: Line, tally: Tally, seq_length: int, on_overlong: OnOverlong) -> Sample | None:
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
                tally.overlong.add(line.number, RowError("overlong", problem), str(line.file))
                return None
            case "drop":
                tally.dropped["overlong"] += 1
                return None
            case "truncate_left":
                sample = Sample(ids=sample.ids[surplus:], mask=sample.mask[surplus:])
            case "truncate_right":
                sample = Sample(ids=sample.ids[:most], mask=sample.mask[:most])
    # The first token is never a label.
    if not sample.mask[1:].any():
        cut = f"after {on_overlong} by {surplus:,}, " if surplus > 0 else ""
        raise RowError("nothing-to-train", f"{cut}no token is trained on")
    if surplus > 0:
        tally.truncated += 1
        tally.tokens_cut += surplus
    return sample


def count(sample: Sample, rendered: Rendered, tally: Tally) -> None:
    tally.ways[rendered.way] += 1
    tally.lost_reasoning += rendered.lost_reasoning
    tally.lengths.append(len(sample.ids))
    tally.supervised.append(int(np.count_nonzero(sample.mask[1:])))
    content = hashlib.blake2b(sample.ids.tobytes(), digest_size=8)
    content.update(sample.mask.tobytes())
    tally.hashes.append(int.from_bytes(content.digest(), "little"))
