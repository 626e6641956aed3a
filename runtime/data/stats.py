"""The figures of prepared data: as JSON, and as a table with a column for each split."""

from collections.abc import Iterator, Mapping
from typing import Any

from .figures import Figures
from .visible import visible, without_folders

# What `data.json` holds for machines only, or for the machine that prepared it.
INTERNAL = ("files", "packages", "splits")


def statistics(name: str, summary: Mapping[str, Any], figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Everything that is known about the data of recipe `name`, as JSON data: a function of the content alone."""
    splits = {}
    for split, numbers in summary["splits"].items():
        splits[split] = {
            **numbers,
            "length_histogram": figures[split].lengths.to_json(),
            "supervised_share_histogram": figures[split].shares.to_json(),
            "first_bad_rows": [_public(line) for line in numbers["first_bad_rows"]],
        }
    return {"name": name, **{key: value for key, value in summary.items() if key not in INTERNAL}, "splits": splits}


def table(statistics: Mapping[str, Any]) -> str:
    """Lines of a label and one right-aligned value per split."""
    splits: Mapping[str, Mapping[str, Any]] = statistics["splits"]
    rows = [(statistics["name"], list(splits)), *_rows(splits, statistics["settings"])]
    left = max(len(label) for label, _ in rows) + 2
    columns = [max(len(values[at]) for _, values in rows) + 2 for at in range(len(splits))]
    lines = [
        (f"{label:<{left}}" + "".join(f"{value:>{size}}" for value, size in zip(values, columns, strict=True))).rstrip()
        for label, values in rows
    ]
    bad = [f"  {visible(line)}" for numbers in splits.values() for line in numbers["first_bad_rows"]]
    if bad:
        lines += ["", "first rows that cannot be used", *bad]
    if shared := statistics.get("train_rows_in_valid"):
        lines += ["", f"WARNING: {shared:,} training rows are validation rows too"]
    return "\n".join(lines) + "\n"


def _rows(splits: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    every = list(splits.values())

    def counts(label: str, key: str) -> tuple[str, list[str]]:
        return label, [f"{numbers[key]:,}" for numbers in every]

    def reasons(title: str, key: str) -> Iterator[tuple[str, list[str]]]:
        for reason in sorted({reason for numbers in every for reason in numbers[key]}):
            yield f"{title}{reason}", [f"{numbers[key].get(reason, 0):,}" for numbers in every]

    yield counts("rows", "rows")
    yield counts("samples", "kept")
    most = max(len(numbers["sources"]) for numbers in every)
    for at in range(most if most > 1 else 0):
        parts = [numbers["sources"][at] if at < len(numbers["sources"]) else None for numbers in every]
        yield f"  source {at + 1}, samples", ["" if part is None else f"{part['kept']:,}" for part in parts]
    yield "left out", [f"{numbers['rows'] - numbers['kept']:,}" for numbers in every]
    yield from reasons("  ", "dropped")
    yield counts(f"cut to {settings['seq_length']:,} positions", "truncated")
    yield counts("  tokens lost by it", "tokens_cut")
    yield counts("samples that repeat an earlier one", "duplicates")
    yield counts("messages without their reasoning", "messages_without_their_reasoning")
    if any("packing" in numbers for numbers in every):
        packings = [numbers.get("packing", {"packs": 0, "use": 0.0}) for numbers in every]
        yield "packs", [f"{packing['packs']:,}" for packing in packings]
        yield "  positions in use", [f"{packing['use']:.2%}" for packing in packings]
    yield "masks proven by", ["" for _ in every]
    yield from reasons("  ", "proven_by")
    yield counts("tokens", "tokens")
    yield counts("  trained on", "supervised_tokens")
    for name in ("min", "median", "mean", "p95", "max"):
        yield f"length, {name}", [f"{numbers['length'].get(name, 0):,.10g}" for numbers in every]
    for name in ("min", "median", "mean", "p95", "max"):
        yield f"trained share, {name}", [f"{numbers['supervised_share'].get(name, 0):.1%}" for numbers in every]


def _public(line: str) -> str:
    """`file:line: code message` with the file's name for its path, which is that of whoever prepared the data."""
    path, separator, rest = line.partition(": ")
    return without_folders(path.rpartition("/")[2] + separator + rest)
