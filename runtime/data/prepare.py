"""Prepare data: from files of rows to a directory of the store, once per content."""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from .indexed import IndexedWriter, token_dtype
from .mask import MaskFinder
from .packing import write_packs
from .reader import digest_rows, require_files, size_of
from .rows import BadRows
from .samples import SampleReader
from .settings import DataSettings, Source
from .store import content_key, locked, new_directory, read_summary, write_json, write_summary
from .tally import Tally, shared_rows
from .template import TEMPLATE_DATE, ChatTemplate, find_template
from .tokens import TextTokenizer

POINTER = "data.json"


class Report(Protocol):
    """Hears how far preparation is: bytes of rows done, of how many, and the rows in them."""

    def __call__(self, done_bytes: int, total_bytes: int, rows: int, /) -> None: ...


def _silent(*_: object) -> None:
    """For callers that want to hear nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """`store` is the prepared directory; `summary` its `data.json`; `notices` are sentences that a user should read."""

    store: Path
    is_new: bool
    summary: Mapping[str, Any]
    notices: tuple[str, ...]

    def rows(self, split: str) -> int:
        """Rows that are left of `split`, `train` or `valid`; 0 if there is none."""
        kept: int = self.summary["splits"].get(split, {}).get("kept", 0)
        return kept

    def samples(self, split: str) -> int:
        """Samples of `split`: its packs, or its rows if they are not packed."""
        packs: int = self.summary["splits"].get(split, {}).get("packing", {}).get("packs", self.rows(split))
        return packs


def prepare(
    settings: DataSettings,
    report: Report = _silent,
    notice: Callable[[str], None] = _silent,
) -> Prepared:
    """Find the prepared data of `settings`, or make it. `notice` is told when another process is being waited for.

    UserError if an input is missing or unusable, or if rows are bad and the settings do not allow it; then nothing is
    stored.
    """
    sources = settings.sources()
    for source in sources.values():
        require_files(source.path, source.key)
    tokenizer = TextTokenizer.load(settings.tokenizer_path, settings.vocab_size)
    template = None
    if settings.format != "text":
        text = find_template(settings.tokenizer_path, tokenizer.config, settings.chat_template_path)
        template = ChatTemplate(text, tokenizer.special_tokens)
    digests = {split: digest_rows(source.path, source.key) for split, source in sources.items()}
    identity = _identity(settings, digests, tokenizer, template)
    key = content_key(identity)
    store = settings.store_path
    summary = read_summary(store / key)
    is_new = False
    if summary is None:
        try:
            with locked(
                store, key, lambda: notice(f"another process prepares the same data in `{store}`; waiting for it")
            ):
                # It may have been made while this process waited.
                summary = read_summary(store / key)
                if summary is None:
                    finder = None if template is None else MaskFinder(template, tokenizer)
                    reader = SampleReader(settings, tokenizer, finder)
                    with new_directory(store, key) as directory:
                        splits = _write_splits(reader, sources, digests, directory, report)
                        write_summary(directory, {**identity, "key": key, **_facts(tokenizer, finder), **splits})
                    summary = read_summary(store / key)
                    is_new = True
        except OSError as error:
            raise UserError(f"prepared data cannot be written to `{store}`: {error}", "see `data.store_path`") from None
    assert summary is not None
    return Prepared(store=store / key, is_new=is_new, summary=summary, notices=tuple(_notices(summary, settings)))


def prepare_run(
    value: Callable[[str], Any],
    build_dir: Path,
    manifest_digest: str,
    report: Report,
    notice: Callable[[str], None] = _silent,
) -> Prepared:
    """Prepare the data of a build dir, whose plan gives `value`, and point to it from the run's directory."""
    prepared = prepare(DataSettings.from_plan(value, build_dir), report, notice)
    run_path = Path(value("logging.run_path"))
    pointer = {
        "manifest": manifest_digest,
        "store": str(prepared.store),
        "train_samples": prepared.samples("train"),
        "valid_samples": prepared.samples("valid"),
        "eval_samples": _eval_samples(prepared.samples("valid"), value),
    }
    try:
        run_path.mkdir(parents=True, exist_ok=True)
        write_json(run_path / POINTER, pointer)
    except OSError as error:
        raise UserError(f"`{run_path / POINTER}` cannot be written: {error}", "see `logging.run_path`") from None
    return prepared


def _eval_samples(samples: int, value: Callable[[str], Any]) -> int:
    """Samples of one evaluation, whole global batches: `eval.eval_iters` of them, or as many as hold every sample."""
    batch: int = value("train.global_batch_size")
    iterations: int | None = value("eval.eval_iters")
    return batch * (-(-samples // batch) if iterations is None else iterations)


def _identity(
    settings: DataSettings, digests: Mapping[str, str], tokenizer: TextTokenizer, template: ChatTemplate | None
) -> dict[str, Any]:
    """Everything that decides what is stored, and nothing else: no path, no clock."""
    return {
        "rows": dict(digests),
        "tokenizer": dict(tokenizer.digests),
        "template": None if template is None else template.text.sha256,
        "settings": {
            "format": settings.format,
            "columns": settings.columns.used_by(settings.format),
            "loss_on": settings.loss_on,
            "on_overlong": settings.on_overlong,
            "on_bad_row": settings.on_bad_row,
            "seq_length": settings.seq_length,
            **({} if settings.packing_multiple is None else {"packing_multiple": settings.packing_multiple}),
        },
    }


def _facts(tokenizer: TextTokenizer, finder: MaskFinder | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "packages": {name: importlib.metadata.version(name) for name in ("jinja2", "numpy", "tokenizers")},
        "vocab": tokenizer.size,
        "pad_id": tokenizer.pad_id,
        "eos_id": tokenizer.eos_id,
    }
    if finder is not None:
        facts["generation_prompt"] = finder.facts.generation_prompt
        facts["end_of_turn"] = sorted(finder.facts.end_tokens)
        facts["template_date"] = TEMPLATE_DATE.date().isoformat()
    return facts


def _write_splits(
    reader: SampleReader,
    sources: Mapping[str, Source],
    digests: Mapping[str, str],
    directory: Path,
    report: Report,
) -> dict[str, Any]:
    total = sum(size_of(source.path) for source in sources.values())
    tallies: dict[str, Tally] = {}
    done = rows = 0
    report(0, total, 0)
    for split, source in sources.items():
        tally = tallies[split] = Tally(bad=BadRows(str(source.path)), overlong=BadRows(str(source.path)))

        def advance(end: int, read: int, done: int = done, rows: int = rows) -> None:
            report(done + end, total, rows + read)

        dtype = token_dtype(reader.tokenizer.size)
        with (
            IndexedWriter(directory / f"{split}.tokens", dtype) as tokens,
            IndexedWriter(directory / f"{split}.mask", np.dtype(np.uint8)) as masks,
        ):
            for sample in reader.read(source, digests[split], tally, advance):
                tokens.add(sample.ids)
                masks.add(sample.mask)
        done, rows = done + size_of(source.path), rows + tally.rows
    report(total, total, rows)
    _refuse(tallies, reader.settings)
    summary: dict[str, Any] = {"splits": {split: tally.summary() for split, tally in tallies.items()}}
    if (multiple := reader.settings.packing_multiple) is not None:
        for split, tally in tallies.items():
            prefix = directory / f"{split}.packs"
            figures = write_packs(prefix, tally.lengths, reader.settings.seq_length, multiple)
            summary["splits"][split]["packing"] = figures
    if "valid" in tallies:
        summary["valid_rows_in_train"] = shared_rows(tallies["train"], tallies["valid"])
    return summary


def _refuse(tallies: Mapping[str, Tally], settings: DataSettings) -> None:
    """UserError for bad rows that the settings do not allow to be skipped, for overlong ones, and for no rows."""
    bad = [tally for tally in tallies.values() if tally.bad.total]
    if bad and settings.on_bad_row == "error":
        told = "\n".join(f"{_of(tally.bad, tally)} cannot be used\n{tally.bad.report()}" for tally in bad)
        raise UserError(
            f"{told}\nnothing was stored", "mend these rows, or leave them out and count them: `data.on_bad_row: skip`"
        )
    long = [tally for tally in tallies.values() if tally.overlong.total]
    if long:
        told = "\n".join(f"{_of(tally.overlong, tally)} are too long\n{tally.overlong.report()}" for tally in long)
        raise UserError(
            f"{told}\nnothing was stored",
            f"set `train.seq_length` to {max(tally.longest for tally in long) - 1:,} or more, or choose "
            "`data.on_overlong`: drop, truncate_left or truncate_right",
        )
    for split, tally in tallies.items():
        if not tally.kept:
            raise UserError(
                f"no row of `{tally.bad.file}` is left to use as {split} data; it has {tally.rows:,} rows\n"
                + (tally.bad.report() if tally.bad.total else ""),
                "see `data.on_bad_row` and `data.on_overlong`",
            )


def _of(bad: BadRows, tally: Tally) -> str:
    return f"{bad.total:,} of {tally.rows:,} rows of `{bad.file}`"


def _notices(summary: Mapping[str, Any], settings: DataSettings) -> list[str]:
    notices = []
    for split, numbers in summary["splits"].items():
        if packing := numbers.get("packing"):
            packs = f"{packing['packs']:,} packs of {packing['positions']:,} positions"
            notices.append(f"{split}: {numbers['kept']:,} rows in {packs}, {packing['use']:.2%} in use")
        if numbers["dropped"]:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in numbers["dropped"].items())
            left = numbers["rows"] - numbers["kept"]
            notices.append(f"{split}: {left:,} of {numbers['rows']:,} rows are left out: {reasons}")
        if numbers["truncated"]:
            notices.append(
                f"{split}: {numbers['truncated']:,} rows are cut to {settings.seq_length:,} positions "
                f"({settings.on_overlong}); {numbers['tokens_cut']:,} tokens are lost"
            )
        if numbers["messages_without_their_reasoning"]:
            count = numbers["messages_without_their_reasoning"]
            notices.append(f"{split}: the chat template leaves out the reasoning of {count:,} messages")
        if numbers["duplicates"]:
            notices.append(f"{split}: {numbers['duplicates']:,} of {numbers['kept']:,} rows repeat an earlier one")
    if shared := summary.get("valid_rows_in_train"):
        kept = summary["splits"]["valid"]["kept"]
        notices.append(
            f"WARNING: {shared:,} of {kept:,} validation rows are training rows too; the validation loss looks too good"
        )
    return notices
