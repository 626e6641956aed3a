"""Rows of a file or a directory of files, one at a time, in bounded memory, and the digest that stands for them."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..digests import known_sha256, read_sha256
from ..errors import UserError
from . import hub
from .files import RowFile, find_files, opened, refuse_foreign
from .jsonarray import json_array
from .jsonrows import json_lines
from .parquet import parquet_rows, require_pyarrow
from .rows import Row, RowError


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row, or what is wrong with it: its file and 1-based line there (in parquet: its number).

    `end` is how many bytes are read, of all files together.
    """

    file: Path | str
    number: int
    end: int
    row: Row | RowError


def require_files(path: str | Path, key: str) -> None:
    """UserError if `path`, which the recipe names under `key`, is nothing that rows can be read from."""
    if hub.is_hub(str(path)):
        hub.require(str(path), key)
        return
    for file in find_files(Path(path), key):
        if file.kind == "parquet":
            require_pyarrow(file.path, key)
        refuse_foreign(file, key)


def size_of(path: str | Path) -> int:
    """Bytes of the file `path`, or of the files of rows in the directory `path`."""
    if hub.is_hub(str(path)):
        return hub.size(str(path))
    return sum(file.path.stat().st_size for file in find_files(Path(path), "data"))


def digest_rows(path: str | Path, key: str, advance: Callable[[int], None] = lambda _: None) -> str:
    """The sha256, in hexadecimal, of the rows in `path`: of a JSON Lines file it is that of the file.

    For other kinds and for directories their kind, which decides what the bytes mean, and the order of the files count
    too; names do not. `advance` hears of the bytes read. UserError if there is no such file, or it is of another kind.
    """
    require_files(path, key)
    if hub.is_hub(str(path)):
        return hub.digest(str(path))
    return _combined([(file, known_sha256(file.path, advance)) for file in find_files(Path(path), key)])


def read_lines(path: str | Path, *, sha256: str | None) -> Iterator[Line]:
    """Every row of `path`, in the order of the files. Raises UserError at the end if they are not those of `sha256`."""
    if hub.is_hub(str(path)):
        for at, end, found in hub.rows(str(path)):
            yield Line(file=str(path), number=at, end=end, row=found)
        return
    path = Path(path)
    done = 0
    digests: list[tuple[RowFile, str]] = []
    for file in find_files(path, "data"):
        if file.kind == "parquet":
            size = file.path.stat().st_size
            for number, total, row in parquet_rows(file.path):
                yield Line(file=file.path, number=number, end=done + size * number // total, row=row)
            # Read from end to start, so what was read cannot be digested on the way.
            digests.append((file, read_sha256(file.path)))
            done += size
        else:
            with opened(file) as (stream, raw):
                rows = json_lines(stream) if file.kind == "jsonl" else json_array(stream, file.path)
                for number, row in rows:
                    yield Line(file=file.path, number=number, end=done + raw.count, row=row)
                digests.append((file, raw.sha256()))
                done += raw.count
    if [file for file, _ in digests] != find_files(path, "data") or sha256 not in (None, _combined(digests)):
        raise UserError(
            f"`{path}` changed while it was read; nothing was stored", "start again when its writer is done"
        )


def _combined(digests: list[tuple[RowFile, str]]) -> str:
    if [file.label for file, _ in digests] == [".jsonl"]:
        return digests[0][1]
    return hashlib.sha256(json.dumps([(file.label, digest) for file, digest in digests]).encode()).hexdigest()
