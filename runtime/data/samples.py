"""Lines of a source to samples: read, render, tokenise in batches, mask, fit to the sequence length.

`SampleMaker.make` does it for a batch of lines and is all that a worker process is asked to do.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from .align import token_mask
from .detect import SUSPICIOUS, note_other_format, other_format
from .fit import Sample, fit, framed
from .formats import Conversation, digest_of, read_conversation, read_text
from .mask import MaskFinder, Rendered
from .reader import Line
from .rows import BadRows, Row, RowError
from .settings import DataSettings, Source
from .tally import Tally
from .tokens import TextTokenizer
from .turns import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of some lines. The samples' tokens and masks stand one after the other, as one array travels faster
    between processes than many; `places` has the file and line of each sample.
    """

    tally: Tally
    ids: NDArray[np.int32]
    mask: NDArray[np.uint8]
    lengths: list[int]
    places: list[tuple[Path | str, int]]
    contents: list[int]
    ways: list[str]
    lost_reasoning: list[int]

    @staticmethod
    def of(samples: Sequence[Sample], tally: Tally) -> "Batch":
        return Batch(
            tally=tally,
            ids=np.concatenate([np.zeros(0, np.int32), *(sample.ids for sample in samples)]),
            mask=np.concatenate([np.zeros(0, np.uint8), *(sample.mask for sample in samples)]),
            lengths=[len(sample.ids) for sample in samples],
            places=[(sample.file, sample.line) for sample in samples],
            contents=[sample.content for sample in samples],
            ways=[sample.way for sample in samples],
            lost_reasoning=[sample.lost_reasoning for sample in samples],
        )

    def samples(self) -> Iterator[Sample]:
        start = 0
        for at, length in enumerate(self.lengths):
            file, line = self.places[at]
            yield Sample(
                ids=self.ids[start : start + length],
                mask=self.mask[start : start + length],
                content=self.contents[at],
                file=file,
                line=line,
                way=self.ways[at],
                lost_reasoning=self.lost_reasoning[at],
            )
            start += length


class SampleMaker:
    """Makes samples with one tokenizer and one chat template. `finder` is None for plain text."""

    def __init__(self, settings: DataSettings, tokenizer: TextTokenizer, finder: MaskFinder | None) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.finder = finder
        # A template's environment serves one thread at a time; tokenising needs neither it nor the interpreter.
        self._rendering = Lock()

    def make(self, lines: Sequence[Line], source: Source) -> Batch:
        """The samples of `lines`, in order, and the count of all lines and of those that are not usable."""
        tally = Tally(bad=BadRows(""), overlong=BadRows(""), rows=len(lines))
        # In the order of the lines, whether it is rendering or tokenising that refuses one.
        refused: dict[int, RowError] = {}
        rendered: list[tuple[int, Rendered, int]] = []
        with self._rendering:
            for at, line in enumerate(lines):
                try:
                    if isinstance(line.row, RowError):
                        raise line.row
                    rendered.append((at, *self._render(line.row, source, tally)))
                except RowError as error:
                    refused[at] = error
        samples = []
        encodings = self.tokenizer.encode([one.text for _, one, _ in rendered])
        for (at, one, content), encoding in zip(rendered, encodings, strict=True):
            try:
                sample = fit(
                    self._sample(one, content, one.tokens or encoding, lines[at]),
                    tally,
                    self.settings.seq_length,
                    self.settings.on_overlong,
                )
            except RowError as error:
                refused[at] = error
                continue
            if sample is not None:
                samples.append(sample)
        for at, refusal in sorted(refused.items()):
            tally.bad.add(lines[at].number, refusal, str(lines[at].file))
        return Batch.of(samples, tally)

    def _render(self, row: Row, source: Source, tally: Tally) -> tuple[Rendered, int]:
        """The text of a row, its proven spans, and the digest of its content; or RowError."""
        try:
            if self.finder is not None:
                conversation = read_conversation(row, source.format, source.columns)
            else:
                text = read_text(row, source.columns)
        except RowError as error:
            advice = other_format(row, source.format, source.columns) if error.code in SUSPICIOUS else None
            if advice is None:
                raise
            note_other_format(advice, tally)
            raise RowError(
                "other-format", f"the row is not of the format {source.format}, but would be read with {advice}"
            ) from None
        if self.finder is not None:
            return self._find(conversation), conversation.digest()
        if match := self.tokenizer.special.search(text):
            raise RowError("special-token", f"the text contains the special token `{match.group()}`; data may not")
        whole = (Span(start=0, end=len(text), end_token=None),)
        return Rendered(text=text, spans=whole, way="whole text"), digest_of(text)

    def _find(self, conversation: Conversation) -> Rendered:
        assert self.finder is not None
        return self.finder.render(
            conversation, self.settings.loss_on, loss_on_reasoning=self.settings.loss_on_reasoning
        )

    def _sample(self, rendered: Rendered, content: int, encoding: object, line: Line) -> Sample:
        ids: list[int] = encoding.ids  # type: ignore[attr-defined]
        # A list becomes an array of C's twice as fast as one of numpy's.
        numbers, mask = np.frombuffer(array("i", ids), np.int32), token_mask(encoding, ids, rendered, self.tokenizer)
        if self.finder is None:
            numbers, mask = framed(ids, self.tokenizer)
        return Sample(
            ids=numbers,
            mask=mask,
            content=content,
            file=line.file,
            line=line.number,
            way=rendered.way,
            lost_reasoning=rendered.lost_reasoning,
        )
