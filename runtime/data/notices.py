"""Sentences about prepared data that a user should read."""

from collections.abc import Iterator, Mapping
from typing import Any

from . import given, hub
from .settings import DataSettings


def notices(summary: Mapping[str, Any], settings: DataSettings) -> Iterator[str]:
    """Everything that is not as plainly expected: what was left out, cut, found twice, or cannot be vouched for."""
    for split, numbers in summary["splits"].items():
        yield from _about(split, numbers, settings)
    if settings.valid_fraction:
        train, valid = (summary["splits"][split]["kept"] for split in ("train", "valid"))
        yield (
            f"valid: {valid:,} of {train + valid:,} rows are held out ({valid / (train + valid):.2%}, "
            f"data.valid_fraction {settings.valid_fraction:g}), chosen by what they say"
        )
    if shared := summary.get("train_rows_in_valid"):
        kept = summary["splits"]["train"]["kept"]
        yield (
            f"WARNING: {shared:,} of {kept:,} training rows are validation rows too (data.on_shared_rows: keep); the "
            "validation loss looks too good"
        )
    for sources in settings.splits().values():
        for source in sources:
            if hub.is_hub(source.path) and not hub.is_pinned(source.path):
                yield (
                    f"{source.key}: `{source.path}` names no commit, so its rows may change; write @ and the 40 digits "
                    "of a commit behind its name"
                )


def _about(split: str, numbers: Mapping[str, Any], settings: DataSettings) -> Iterator[str]:
    kept = numbers["kept"]
    if packing := numbers.get("packing"):
        packs = f"{packing['packs']:,} packs of {packing['positions']:,} positions"
        yield f"{split}: {kept:,} rows in {packs}, {packing['use']:.2%} in use"
    if numbers["dropped"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in numbers["dropped"].items())
        left = numbers["rows"] - kept
        yield f"{split}: {left:,} of {numbers['rows']:,} rows are left out: {reasons}"
    if numbers["truncated"]:
        yield (
            f"{split}: {numbers['truncated']:,} rows are cut to {settings.seq_length:,} positions "
            f"({settings.on_overlong}); {numbers['tokens_cut']:,} tokens are lost"
        )
    if count := numbers["messages_without_their_reasoning"]:
        yield f"{split}: the chat template leaves out the reasoning of {count:,} messages"
    if numbers["duplicates"]:
        yield f"{split}: {numbers['duplicates']:,} of {kept:,} rows repeat an earlier one"
    if not settings.is_pretrain and (count := numbers["proven_by"].get(given.WAY)):
        yield f"{split}: the masks of {count:,} rows were given, not proven"
