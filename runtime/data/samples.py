"""Rows of a file or directory to samples: read, render, tokenise in batches, mask, fit to the sequence length."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .align import token_mask
from .detect import SUSPICIOUS, note_other_format, other_format, refuse_other_format
from .formats import read_conversation, read_text
from .mask import MaskFinder, Rendered
from .reader import Line, read_lines
from .rows import Row, RowError
from .settings import DataSettings
from .tally import Tally
from .tokens import TextTokenizer
from .turns import Span

# A batch keeps all cores busy for about a tenth of a second, and is small beside the tokenizer itself.
BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`ids` and `mask` have the same length; mask[i] = 1 means that ids[i] is trained on as a label."""

    ids: NDArray[np.int32]
    mask: NDArray[np.uint8]


type _Batch = list[tuple[Line, Rendered]]


class SampleReader:
    """Samples of files, all with the same settings. `finder` is None for plain text."""

    def __init__(self, settings: DataSettings, tokenizer: TextTokenizer, finder: MaskFinder | None) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.finder = finder

    def read(self, path: Path, sha256: str, tally: Tally, advance: Callable[[int, int], None]) -> Iterator[Sample]:
        """Every usable row of `path`, in order; `tally` counts the others. `advance` hears of bytes and rows read.

        One batch is tokenised, outside of the interpreter's lock, while the next one is rendered.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: tuple[_Batch, Future[list[Any]]] | None = None
            for batch in self._batches(read_lines(path, sha256=sha256), tally):
                future = pool.submit(self.tokenizer.encode, [rendered.text for _, rendered in batch])
                if waiting is not None:
                    yield from self._samples(*waiting, tally, advance)
                waiting = batch, future
            if waiting is not None:
                yield from self._samples(*waiting, tally, advance)

    def _batches(self, lines: Iterable[Line], tally: Tally) -> Iterator[_Batch]:
        batch: _Batch = []
        characters = 0
        for line in lines:
            tally.rows += 1
            if isinstance(line.row, RowError):
                tally.bad.add(line.number, line.row, str(line.file))
                continue
            try:
                rendered = self._render(line.row, tally)
            except RowError as error:
                tally.bad.add(line.number, error, str(line.file))
                continue
            # The row itself is no longer needed, and may be large.
            batch.append((replace(line, row={}), rendered))
            characters += len(rendered.text)
            if characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
        refuse_other_format(tally, self.settings.format)
        if batch:
            yield batch

    def _render(self, row: Row, tally: Tally) -> Rendered:
        settings = self.settings
        try:
            if self.finder is not None:
                conversation = read_conversation(row, settings.format, settings.columns)
            else:
                text = read_text(row, settings.columns)
        except RowError as error:
            advice = other_format(row, settings.format, settings.columns) if error.code in SUSPICIOUS else None
            if advice is None:
                raise
            note_other_format(advice, tally, settings.format)
            raise RowError(
                "other-format", f"the row is not of the format {settings.format}, but would be read with {advice}"
            ) from None
        if self.finder is not None:
            return self.finder.render(conversation, settings.loss_on)
        if match := self.tokenizer.special.search(text):
            raise RowError("special-token", f"the text contains the special token `{match.group()}`; data may not")
        return Rendered(text=text, spans=(Span(start=0, end=len(text), end_token=None),), way="whole text")

    def _samples(
        self, batch: _Batch, future: "Future[list[Any]]", tally: Tally, advance: Callable[[int, int], None]
    ) -> Iterator[Sample]:
        for (line, rendered), encoding in zip(batch, future.result(), strict=True):
            try:
                if rendered.tokens is not None:
                    encoding = rendered.tokens
                ids: list[int] = encoding.ids
                mask = token_mask(encoding, ids, rendered, self.tokenizer)
                sample = self._fit(self._frame(ids, mask), line, tally)
            except RowError as error:
                tally.bad.add(line.number, error, str(line.file))
                continue
            if sample is not None:
                self._count(sample, rendered, tally)
                yield sample
        advance(batch[-1][0].end, tally.rows)

    def _frame(self, ids: list[int], mask: NDArray[np.uint8]) -> Sample:
        """Plain text has no template that ends it: an end token is added, and a begin token if the tokenizer asks."""
        tokenizer = self.tokenizer
        if self.finder is None:
            before = (
                [tokenizer.bos_id] if tokenizer.config.get("add_bos_token") and tokenizer.bos_id is not None else []
            )
            after = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
            ids = [*before, *ids, *after]
            mask = np.ones(len(ids), dtype=np.uint8)
        return Sample(ids=np.array(ids, dtype=np.int32), mask=mask)

    def _fit(self, sample: Sample, line: Line, tally: Tally) -> Sample | None:
        """The sample, cut if need be; None if it is left out. RowError if nothing in it is trained on."""
        most = self.settings.seq_length + 1
        surplus = len(sample.ids) - most
        tally.longest = max(tally.longest, len(sample.ids))
        if surplus > 0:
            match self.settings.on_overlong:
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
            cut = f"after {self.settings.on_overlong} by {surplus:,}, " if surplus > 0 else ""
            raise RowError("nothing-to-train", f"{cut}no token is trained on")
        if surplus > 0:
            tally.truncated += 1
            tally.tokens_cut += surplus
        return sample

    def _count(self, sample: Sample, rendered: Rendered, tally: Tally) -> None:
        tally.ways[rendered.way] += 1
        tally.lost_reasoning += rendered.lost_reasoning
        tally.lengths.append(len(sample.ids))
        tally.supervised.append(int(np.count_nonzero(sample.mask[1:])))
        content = hashlib.blake2b(sample.ids.tobytes(), digest_size=8)
        content.update(sample.mask.tobytes())
        tally.hashes.append(int.from_bytes(content.digest(), "little"))
