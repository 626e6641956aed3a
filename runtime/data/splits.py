"""Rows to their splits: each sample goes to training or validation, is written and counted, or is refused.

Validation rows are read first, so that a training row that is one of them is known when it comes.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from . import given
from .fit import Sample
from .indexed import IndexedWriter, token_dtype
from .packing import write_packs
from .reader import read_lines, size_of
from .rows import BadRows, RowError
from .settings import DataSettings, Source
from .tally import Tally
from .template import ChatTemplate
from .tokens import TextTokenizer
from .workers import SampleReader, reading

type Report = Callable[[int, int, int], None]

SHARED = "also-in-valid"


class Splits:
    """Writes `train` and, if there is any, `valid` to a directory."""

    def __init__(
        self, settings: DataSettings, sources: Mapping[str, Sequence[Source]], digests: Mapping[str, Sequence[str]]
    ) -> None:
        self.settings = settings
        self.sources = sources
        self.digests = digests
        names = ["train"] if "train" in sources else []  # rows to evaluate on need no others
        names += ["valid"] if "valid" in sources or settings.valid_fraction else []
        self.tallies: dict[str, list[Tally]] = {name: [] for name in names}
        self.shared = BadRows("")
        self._shared_kept = 0
        self._valid_contents: set[int] = set()
        self._writers: dict[str, tuple[IndexedWriter, IndexedWriter]] = {}

    def write(
        self, tokenizer: TextTokenizer, template: ChatTemplate | None, directory: Path, report: Report
    ) -> dict[str, Any]:
        """What `data.json` says of the splits. UserError if rows are refused."""
        sizes = {(split, at): _size(source) for split in self.sources for at, source in enumerate(self.sources[split])}
        total, done, rows = sum(sizes.values()), 0, 0
        report(0, total, 0)
        with ExitStack() as stack:
            for split in self.tallies:
                self._writers[split] = (
                    stack.enter_context(IndexedWriter(directory / f"{split}.tokens", token_dtype(tokenizer.size))),
                    stack.enter_context(IndexedWriter(directory / f"{split}.mask", np.dtype(np.uint8))),
                )
            reader = stack.enter_context(reading(self.settings, tokenizer, template, total))
            for split in sorted(self.sources, reverse=True):
                for at, source in enumerate(self.sources[split]):

                    def advance(end: int, read: int, done: int = done, rows: int = rows) -> None:
                        report(done + end, total, rows + read)

                    rows += self._write_source(split, source, self.digests[split][at], reader, tokenizer, advance)
                    done += sizes[split, at]
        report(total, total, rows)
        self._refuse()
        return self._summary(directory)

    def _write_source(
        self,
        split: str,
        source: Source,
        digest: str,
        reader: SampleReader,
        tokenizer: TextTokenizer,
        advance: Callable[[int, int], None],
    ) -> int:
        """Returns the number of rows read."""
        own = Tally(bad=BadRows(source.path), overlong=BadRows(source.path))
        self.tallies[split].append(own)
        fraction = self.settings.valid_fraction
        other = Tally(bad=BadRows(source.path), overlong=BadRows(source.path))
        if fraction:
            self.tallies["valid"].append(other)
        if source.format == "tokens":
            samples = given.read(source, self.settings, tokenizer.size, own, advance)
        else:
            samples = reader.read(read_lines(source.path, sha256=digest), source, own, advance)
        for sample in samples:
            if fraction and sample.content < fraction * 2**64:
                other.keep(sample)
                self._add("valid", sample)
            elif split == "valid" or self._may_train(sample, own):
                own.keep(sample)
                self._add(split, sample)
        read = own.rows
        # A row counts where it went; one that is not usable went nowhere and counts as training's.
        other.rows = other.kept
        own.rows -= other.rows
        return read

    def _add(self, split: str, sample: Sample) -> None:
        tokens, masks = self._writers[split]
        tokens.add(sample.ids)
        masks.add(sample.mask)
        if split == "valid" and "valid" in self.sources:
            self._valid_contents.add(sample.content)

    def _may_train(self, sample: Sample, tally: Tally) -> bool:
        if sample.content not in self._valid_contents:
            return True
        match self.settings.on_shared_rows:
            case "drop":
                tally.dropped[SHARED] += 1
            case "error":
                self.shared.add(sample.line, RowError(SHARED, "the row is a validation row too"), str(sample.file))
            case "keep":
                self._shared_kept += 1
                return True
        return False

    def _refuse(self) -> None:
        """UserError for bad rows that the settings do not allow to be skipped, for overlong or shared ones, and for
        no rows.
        """
        tallies = [tally for parts in self.tallies.values() for tally in parts]
        bad = [tally for tally in tallies if tally.bad.total]
        if bad and self.settings.on_bad_row == "error":
            told = "\n".join(f"{_of(tally.bad, tally)} cannot be used\n{tally.bad.report()}" for tally in bad)
            raise UserError(
                f"{told}\nnothing was stored",
                "mend these rows, or leave them out and count them: `data.on_bad_row: skip`",
            )
        long = [tally for tally in tallies if tally.overlong.total]
        if long:
            told = "\n".join(f"{_of(tally.overlong, tally)} are too long\n{tally.overlong.report()}" for tally in long)
            raise UserError(
                f"{told}\nnothing was stored",
                f"set `train.seq_length` to {max(tally.longest for tally in long) - 1:,} or more, or choose "
                "`data.on_overlong`: drop, truncate_left or truncate_right",
            )
        if self.shared.total:
            read = sum(tally.rows for tally in self.tallies["train"])
            raise UserError(
                f"{self.shared.total:,} of {read:,} training rows are validation rows too\n{self.shared.report()}\n"
                "nothing was stored",
                "choose `data.on_shared_rows`: drop leaves them out of the training rows, keep trains on them all the "
                "same",
            )
        for split, parts in self.tallies.items():
            whole = _whole(parts)
            if not whole.kept:
                self._refuse_empty(split, whole)

    def _refuse_empty(self, split: str, whole: Tally) -> None:
        fraction = self.settings.valid_fraction
        if fraction and not whole.bad.total and not whole.dropped:
            read = sum(tally.rows for parts in self.tallies.values() for tally in parts)
            raise UserError(
                f"a `data.valid_fraction` of {fraction:g} leaves no row of {read:,} for {split}",
                "choose another fraction, or name a file of validation rows: `data.valid_data_path`",
            )
        named = " and ".join(f"`{source.path}`" for source in self.sources.get(split, self.sources["train"]))
        if not whole.rows:
            raise UserError(f"{named} holds no rows, and {split} data is wanted", "name files that have some")
        raise UserError(
            f"no row of {named} is left to use as {split} data; it has {whole.rows:,} rows\n"
            + (whole.bad.report() if whole.bad.total else ""),
            "see `data.on_bad_row` and `data.on_overlong`",
        )

    def _summary(self, directory: Path) -> dict[str, Any]:
        summary: dict[str, Any] = {"splits": {}}
        for split, parts in self.tallies.items():
            figures = summary["splits"][split] = _whole(parts).summary()
            figures["sources"] = [
                {
                    "rows": part.rows,
                    "kept": part.kept,
                    "dropped": dict(sorted((part.dropped + part.bad.counts).items())),
                    "tokens": int(np.array(part.lengths, np.int64).sum()),
                }
                for part in parts
            ]
            if self.settings.is_blend and split == "train":
                samples = [part.kept for part in parts]
                groups = [part.lengths for part in parts]
            else:
                samples = []
                groups = [_whole(parts).lengths]
            if (multiple := self.settings.packing_multiple) is not None:
                prefix = directory / f"{split}.packs"
                figures["packing"], samples = write_packs(prefix, groups, self.settings.seq_length, multiple)
            if self.settings.is_blend and split == "train":
                for source, count in zip(figures["sources"], samples, strict=True):
                    source["samples"] = count
        if "valid" in self.sources:
            summary["train_rows_in_valid"] = self._shared_kept
        return summary


def _whole(parts: Sequence[Tally]) -> Tally:
    if len(parts) == 1:
        return parts[0]
    whole = Tally(bad=BadRows(""), overlong=BadRows(""))
    for part in parts:
        whole.absorb(part)
    return whole


def _size(source: Source) -> int:
    return given.size(source) if source.format == "tokens" else size_of(source.path)


def _of(bad: BadRows, tally: Tally) -> str:
    return f"{bad.total:,} of {tally.rows:,} rows of `{bad.file}`"
