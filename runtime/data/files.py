"""Which files hold rows, of what kind each one is, and its bytes, digested while they are read.

The name decides the kind and the first bytes must agree: a file of another kind than its name says, UTF-16 or a byte
order mark is named, with the remedy, before any row is read.
"""

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from ..errors import UserError

type Kind = Literal["jsonl", "json", "parquet"]

KINDS: dict[str, tuple[Kind, bool]] = {
    ".jsonl": ("jsonl", False),
    ".jsonl.gz": ("jsonl", True),
    ".json": ("json", False),
    ".json.gz": ("json", True),
    ".parquet": ("parquet", False),
}
BUFFER = 1 << 18

UTF8 = "save it as UTF-8 without a byte order mark"
# What text that is no UTF-8 JSON begins with.
FOREIGN = (
    (b"\x1f\x8b", "is compressed with gzip", "let its name say so: end it in `.gz`"),
    (b"PAR1", "is a parquet file", "let its name say so: end it in `.parquet`"),
    (b"\xef\xbb\xbf", "begins with a byte order mark", UTF8),
    (b"\xff\xfe", "is UTF-16, or begins with a byte order mark", UTF8),
    (b"\xfe\xff", "is UTF-16, or begins with a byte order mark", UTF8),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """One file of rows."""

    path: Path
    kind: Kind
    is_gzip: bool

    @property
    def label(self) -> str:
        """The end of a name that says what the file is."""
        return f".{self.kind}" + (".gz" if self.is_gzip else "")


def find_files(path: Path, key: str) -> list[RowFile]:
    """The file `path`, which the recipe names under `key`, or the files in the directory `path`, sorted by name.

    A single file whose name says nothing is JSON Lines. UserError if there is none, or if a directory holds anything
    but files of one kind; hidden names, and those that begin with `_`, are passed over.
    """
    if not path.is_dir():
        _require_file(path, key)
        kind, is_gzip = _kind_of(path) or ("jsonl", path.suffix == ".gz")
        return [RowFile(path=path, kind=kind, is_gzip=is_gzip)]
    try:
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith((".", "_")))
    except OSError as error:
        raise UserError(f"`{key}`: `{path}` cannot be read: {error.strerror}") from None
    known = ", ".join(KINDS)
    files: list[RowFile] = []
    for file in (path / name for name in names):
        found = None if file.is_dir() else _kind_of(file)
        if found is None:
            what = "is a directory" if file.is_dir() else "is no file of rows by its name"
            raise UserError(
                f"`{key}`: `{file}` {what}", f"a directory of rows holds nothing but files of one of {known}"
            )
        _require_file(file, key)
        files.append(RowFile(path=file, kind=found[0], is_gzip=found[1]))
        if files[0].label != files[-1].label:
            raise UserError(
                f"`{key}`: `{path}` holds files of two kinds, `{files[0].path.name}` and `{file.name}`",
                "put them into a directory each",
            )
    if not files:
        raise UserError(f"`{key}`: there is no file of rows in the directory `{path}`", f"names end in one of {known}")
    return files


def _kind_of(path: Path) -> tuple[Kind, bool] | None:
    ends = [end for end in KINDS if path.name.lower().endswith(end)]
    return KINDS[ends[0]] if ends else None


def _require_file(path: Path, key: str) -> None:
    if path.is_file() and os.access(path, os.R_OK):
        return
    if path.exists():
        what = "cannot be read" if path.is_file() else "is no file"
        raise UserError(f"`{key}`: `{path}` {what}", "give this user the right to read it" if path.is_file() else None)
    place = "" if path.is_absolute() else f", which is looked for in `{Path.cwd()}`"
    raise UserError(
        f"`{key}`: there is no file `{path}`{place}",
        "put it there, or start launch.sh in the directory that the path is relative to, or set SFTC_ROOT to it",
    )


class HashedBytes(io.RawIOBase):
    """A file's bytes, counted and digested as they are read; nothing is skipped."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._digest = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        size = self._file.readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:size])
        self.count += size
        return size

    def sha256(self) -> str:
        """The digest of the whole file: what is left of it is read."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def opened(file: RowFile) -> Iterator[tuple[IO[bytes], HashedBytes]]:
    """The unpacked bytes of `file`, and those that it is made of. UserError if it is gone or damaged."""
    try:
        with (
            HashedBytes(file.path) as raw,
            io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb") if file.is_gzip else raw, BUFFER) as stream,
        ):
            yield stream, raw
    except EOFError:
        raise UserError(
            f"`{file.path}` is cut off: it ends in the middle of its gzip data; nothing was stored", "copy it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"`{file.path}` is damaged, or no gzip file: {error}; nothing was stored",
            "copy it again; `gzip --test` says whether it is whole",
        ) from None
    except OSError as error:
        raise UserError(f"`{file.path}` cannot be read: {error.strerror}; nothing was stored", "start again") from None


def refuse_foreign(file: RowFile, key: str) -> None:
    """UserError if the first bytes of `file` are of another kind than its name says."""
    with opened(file) as (stream, _):
        head = stream.read(4)
    if file.kind == "parquet":
        if head != b"PAR1":
            raise UserError(f"`{key}`: `{file.path}` is no parquet file: it does not begin with PAR1", "copy it again")
        return
    for magic, what, remedy in FOREIGN:
        if head.startswith(magic):
            unpacked = ", unpacked," if file.is_gzip else ""
            raise UserError(f"`{key}`: `{file.path}`{unpacked} {what}", remedy)
