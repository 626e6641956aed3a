"""Prepare data: from files of rows to a directory of the store, once per content."""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError
from . import given
from .detect import detected
from .facts import TemplateFacts
from .notices import notices
from .prefixes import prefix_of
from .reader import digest_rows, require_files
from .settings import Columns, DataSettings, Source
from .splits import Splits
from .store import content_key, locked, new_directory, read_summary, write_json, write_summary
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
    sources = {
        split: tuple(_recognised(source, settings, notice) for source in found)
        for split, found in settings.splits().items()
    }
    tokenizer = TextTokenizer.load(settings.tokenizer_path, settings.vocab_size)
    template = None
    if any(source.format not in ("text", "tokens") for found in sources.values() for source in found):
        text = find_template(settings.tokenizer_path, tokenizer.config, settings.chat_template_path)
        template = ChatTemplate(text, tokenizer.special_tokens)
    digests = {split: [_digest(source, settings) for source in found] for split, found in sources.items()}
    identity = _identity(settings, sources, digests, tokenizer, template)
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
                    with new_directory(store, key) as directory:
                        splits = Splits(settings, sources, digests).write(tokenizer, template, directory, report)
                        write_summary(directory, {**identity, "key": key, **_facts(tokenizer, template), **splits})
                    summary = read_summary(store / key)
                    is_new = True
        except OSError as error:
            raise UserError(f"prepared data cannot be written to `{store}`: {error}", "see `data.store_path`") from None
    assert summary is not None
    return Prepared(store=store / key, is_new=is_new, summary=summary, notices=tuple(notices(summary, settings)))


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


def _recognised(source: Source, settings: DataSettings, notice: Callable[[str], None]) -> Source:
    """`source` with the format of its rows, which is said if it was found out. UserError if they cannot be read."""
    if source.format == "tokens" or (source.format == "auto" and prefix_of(source.path) is not None):
        given.require(source, settings.is_pretrain)
        found = replace(source, format="tokens")
    else:
        require_files(source.path, source.key)
        found = detected(source) if source.format == "auto" else source
    if found != source:
        usual = Columns().used_by(found.format)
        columns = [
            f"{role} from `{name}`"
            for role, name in found.columns.used_by(found.format).items()
            if name not in (None, usual[role])
        ]
        notice(f"{source.key}: " + ", ".join([f"the rows are of the format {found.format}", *columns]))
    return found


def _digest(source: Source, settings: DataSettings) -> str:
    if source.format == "tokens":
        return given.digest(source, settings.is_pretrain)
    return digest_rows(source.path, source.key)


def _identity(
    settings: DataSettings,
    sources: Mapping[str, Sequence[Source]],
    digests: Mapping[str, Sequence[str]],
    tokenizer: TextTokenizer,
    template: ChatTemplate | None,
) -> dict[str, Any]:
    """Everything that decides what is stored, and nothing else: no path, no clock, no weight."""
    named = {
        split if len(found) == 1 else f"{split}, source {at + 1}": (source, digests[split][at])
        for split, found in sources.items()
        for at, source in enumerate(found)
    }
    formats = {
        name: {"format": source.format, "columns": source.columns.used_by(source.format)}
        for name, (source, _) in named.items()
    }
    optional = {
        "loss_on_reasoning": None if settings.loss_on_reasoning else False,
        "valid_fraction": settings.valid_fraction,
        "on_shared_rows": settings.on_shared_rows if settings.valid_data_path is not None else None,
        "packing_multiple": settings.packing_multiple,
        "is_blend": settings.is_blend or None,
        "is_pretrain": settings.is_pretrain or None,
    }
    return {
        "rows": {name: digest for name, (_, digest) in named.items()},
        "tokenizer": dict(tokenizer.digests),
        "template": None if template is None else template.text.sha256,
        "settings": {
            "sources": formats,
            "loss_on": settings.loss_on,
            "on_overlong": settings.on_overlong,
            "on_bad_row": settings.on_bad_row,
            "seq_length": settings.seq_length,
            **{name: value for name, value in optional.items() if value is not None},
        },
    }


def _facts(tokenizer: TextTokenizer, template: ChatTemplate | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "packages": {name: importlib.metadata.version(name) for name in ("jinja2", "numpy", "tokenizers")},
        "vocab": tokenizer.size,
        "pad_id": tokenizer.pad_id,
        "eos_id": tokenizer.eos_id,
    }
    if template is not None:
        said = TemplateFacts(template, tokenizer.special)
        facts["generation_prompt"] = said.generation_prompt
        facts["end_of_turn"] = sorted(said.end_tokens)
        facts["template_date"] = TEMPLATE_DATE.date().isoformat()
    return facts
