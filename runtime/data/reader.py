"""JSON Lines files, one row at a time, in bounded memory.

CRLF line ends and blank lines are accepted. A byte order mark, UTF-16, gzip and parquet are not: they are named, with
the remedy, before any row is read.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .rows import RowError

# What a file that is no JSON Lines begins with.
FOREIGN = (
    (b"\x1f\x8b", "is compressed with gzip", "unpack it first: `gunzip --keep {path}`"),
    (b"PAR1", "is a parquet file", "write its rows as JSON Lines, one object per line"),
    (
        b"\xef\xbb\xbf",
        "begins with a byte order mark",
        "save it as UTF-8 without one: `sed -i '1s/^\\xEF\\xBB\\xBF//' {path}`",
    ),
    (b"\xff\xfe", "is UTF-16, or begins with a byte order mark", "save it as UTF-8 without a byte order mark"),
    (b"\xfe\xff", "is UTF-16, or begins with a byte order mark", "save it as UTF-8 without a byte order mark"),
)

SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: its 1-based number, and the object on it or what is wrong with it. `end` is a byte offset."""

    number: int
    end: int
    row: dict[str, Any] | RowError


def require_file(path: Path, key: str) -> None:
    """Raise UserError if `path`, which the recipe names under `key`, is no readable file."""
    if path.is_file() and os.access(path, os.R_OK):
        return
    if path.is_dir():
        raise UserError(f"`{key}`: `{path}` is a directory", "name one file")
    if path.exists():
        raise UserError(f"`{key}`: `{path}` cannot be read", "give this user the right to read it")
    place = "" if path.is_absolute() else f", which is looked for in `{Path.cwd()}`"
    raise UserError(
        f"`{key}`: there is no file `{path}`{place}",
        "put it there, or start launch.sh in the directory that the path is relative to, or set SFTC_ROOT to it",
    )


def digest_rows(path: Path, key: str, advance: Callable[[int], None] = lambda _: None) -> str:
    """The sha256 of a JSON Lines file, in hexadecimal; UserError if it is missing or of another kind."""
    require_file(path, key)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        chunk = stream.read(1 << 20)
        for magic, what, remedy in FOREIGN:
            if chunk.startswith(magic):
                raise UserError(f"`{key}`: `{path}` {what}", remedy.format(path=path))
        while chunk:
            digest.update(chunk)
            advance(len(chunk))
            chunk = stream.read(1 << 20)
    return digest.hexdigest()


def read_lines(path: Path, *, sha256: str) -> Iterator[Line]:
    """Every line of `path` that is not blank. Raises UserError at the end if the content is not that of `sha256`."""
    digest = hashlib.sha256()
    end = 0
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            digest.update(raw)
            end += len(raw)
            if not raw.isspace():
                yield Line(number=number, end=end, row=_parse(raw))
    if digest.hexdigest() != sha256:
        raise UserError(
            f"`{path}` changed while it was read; nothing was stored", "start again when its writer is done"
        )


def _parse(raw: bytes) -> dict[str, Any] | RowError:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return RowError("not-utf8", f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8")
    try:
        row = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        return RowError("not-json", "nested too deeply")
    except ValueError as error:
        if not raw.endswith(b"\n"):
            return RowError("truncated", "the last line ends in the middle of its JSON value; the file is cut off")
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return RowError("not-json", reason[:1].lower() + reason[1:])
    if not isinstance(row, dict):
        hint = "; this looks like one JSON array, and JSON Lines is wanted" if isinstance(row, list) else ""
        return RowError("not-an-object", f"the line holds {json_type(row)}, not an object with columns{hint}")
    # Only an escape can bring a lone surrogate into a string that was decoded from UTF-8.
    if SURROGATE_ESCAPE.search(raw) and _has_lone_surrogate(row):
        return RowError(
            "lone-surrogate", "a string has half of a surrogate pair (\\ud800 to \\udfff), which is no text"
        )
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"`{name}` is no JSON value")


def _has_lone_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def json_type(value: Any) -> str:
    """The JSON name of `value`'s type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
