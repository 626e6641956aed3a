"""Rows of a dataset on the Hugging Face hub; the only importer of `datasets`, which few need.

An address is spelled as `huggingface_hub` spells it: `hf://datasets/OWNER/NAME[@REVISION]`, here followed by
`?config=CONFIG&split=SPLIT` where the dataset has several. `datasets` downloads it once and maps it into memory.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from ..errors import UserError
from .parquet import without_nulls
from .rows import Row

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://datasets/(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?(?:\?(?P<query>.*))?")
SPELLING = "hf://datasets/OWNER/NAME[@REVISION][?config=CONFIG&split=SPLIT]"
BATCH_ROWS = 256


def is_hub(path: str) -> bool:
    return path.startswith(SCHEME)


def is_pinned(address: str) -> bool:
    """Whether the address names a commit; a branch or a tag may come to mean other rows."""
    match = ADDRESS.fullmatch(address)
    return match is not None and re.fullmatch("[0-9a-f]{40}", match["revision"] or "") is not None


def require(address: str, key: str) -> None:
    """UserError if `address` is malformed, or if its dataset cannot be had."""
    match = ADDRESS.fullmatch(address)
    query = parse_qs(match["query"] or "") if match else {}
    if match is None or set(query) - {"config", "split"}:
        raise UserError(f"`{key}`: `{address}` is no address of a dataset", f"write {SPELLING}")
    try:
        import datasets  # noqa: F401
    except ImportError:
        raise UserError(
            f"`{key}`: `{address}` is read with the library datasets, which is not installed",
            "install the extra `hub`: `pip install 'sftc[hub]'`",
        ) from None
    try:
        dataset(address)
    except UserError:
        raise
    # Whatever a hub, a network and a foreign dataset can do.
    except Exception as error:
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(
            f"`{key}`: `{address}` cannot be loaded: {said}",
            "see that this machine reaches the hub and that the name, config and split are right, or download the rows "
            "to a file",
        ) from None


@cache
def dataset(address: str) -> Any:
    """The rows as a `datasets.Dataset`, mapped into memory."""
    match = ADDRESS.fullmatch(address)
    assert match is not None
    query = {name: values[-1] for name, values in parse_qs(match["query"] or "").items()}
    return load(match["name"], query.get("config"), query.get("split", "train"), match["revision"])


def load(name: str, config: str | None, split: str, revision: str | None) -> Any:
    import datasets

    return datasets.load_dataset(name, config, split=split, revision=revision)


def size(address: str) -> int:
    """Bytes of the rows in memory."""
    return int(dataset(address).data.nbytes)


def digest(address: str) -> str:
    """The sha256, in hexadecimal, of the rows as JSON Lines with sorted keys."""
    total = hashlib.sha256()
    for _, _, row in rows(address):
        total.update(json.dumps(row, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8") + b"\n")
    return total.hexdigest()


def rows(address: str) -> Iterator[tuple[int, int, Row]]:
    """Number, from 1, of every row, the bytes read with it, and the row. A null below a column is no key."""
    found = dataset(address)
    count, whole, number = len(found), size(address), 0
    for batch in found.with_format("arrow").iter(batch_size=BATCH_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield number, whole * number // count, without_nulls(row)
