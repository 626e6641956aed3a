"""Rows of a file or directory to samples: read, render, tokenise in batches, mask, fit to the sequence length."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from .align import token_mask
from .detect import SUSPICIOUS, note_other_format, other_format, refuse_other_format
from .fit import Sample, count, fit, framed
from .formats import read_conversation, read_text
from .mask import MaskFinder, Rendered
from .reader import Line, read_lines
from .rows import Row, RowError
from .settings import DataSettings, Source
from .tally import Tally
from .tokens import TextTokenizer
from .turns import Span

# A batch keeps all cores busy for about a tenth of a second, and is small beside the tokenizer itself.
BATCH_CHARACTERS = 1 << 20


type _Batch = list[tuple[Line, Rendered]]


class SampleReader:
    """Samples of files, all with the same settings. `finder` is None for plain text."""

    def __init__(self, settings: DataSettings, tokenizer: TextTokenizer, finder: MaskFinder | None) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.finder = finder

    def read(self, source: Source, sha256: str, tally: Tally, advance: Callable[[int, int], None]) -> Iterator[Sample]:
        """Every usable row of `source`, in order; `tally` counts the others. `advance` hears of bytes and rows read.

        One batch is tokenised, outside of the interpreter's lock, while the next one is rendered.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: tuple[_Batch, Future[list[Any]]] | None = None
            for batch in self._batches(read_lines(source.path, sha256=sha256), source, tally):
                future = pool.submit(self.tokenizer.encode, [rendered.text for _, rendered in batch])
                if waiting is not None:
                    yield from self._samples(*waiting, tally, advance)
                waiting = batch, future
            if waiting is not None:
                yield from self._samples(*waiting, tally, advance)

    def _batches(self, lines: Iterable[Line], source: Source, tally: Tally) -> Iterator[_Batch]:
        batch: _Batch = []
        characters = 0
        for line in lines:
            tally.rows += 1
            if isinstance(line.row, RowError):
                tally.bad.add(line.number, line.row, str(line.file))
                continue
            try:
                rendered = self._render(line.row, source, tally)
            except RowError as error:
                tally.bad.add(line.number, error, str(line.file))
                continue
            # The row itself is no longer needed, and may be large.
            batch.append((replace(line, row={}), rendered))
            characters += len(rendered.text)
            if characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
        refuse_other_format(tally, source.format)
        if batch:
            yield batch

    def _render(self, row: Row, source: Source, tally: Tally) -> Rendered:
        try:
            if self.finder is not None:
                conversation = read_conversation(row, source.format, source.columns)
            else:
                text = read_text(row, source.columns)
        except RowError as error:
            advice = other_format(row, source.format, source.columns) if error.code in SUSPICIOUS else None
            if advice is None:
                raise
            note_other_format(advice, tally, source.format)
            raise RowError(
                "other-format", f"the row is not of the format {source.format}, but would be read with {advice}"
            ) from None
        if self.finder is not None:
            return self.finder.render(conversation, self.settings.loss_on)
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
                sample = (
                    framed(ids, self.tokenizer)
                    if self.finder is None
                    else Sample(ids=np.array(ids, np.int32), mask=mask)
                )
                kept = fit(sample, line, tally, self.settings.seq_length, self.settings.on_overlong)
            except RowError as error:
                tally.bad.add(line.number, error, str(line.file))
                continue
            if kept is not None:
                count(kept, rendered, tally)
                yield kept
        advance(batch[-1][0].end, tally.rows)
