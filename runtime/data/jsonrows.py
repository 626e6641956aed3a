"""JSON Lines: one row per line. CRLF line ends and blank lines are accepted."""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from .rows import Row, RowError, json_type

# About four million tokens. Longer lines are passed over in pieces and reported.
MOST_BYTES = 1 << 24

SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def json_lines(stream: IO[bytes]) -> Iterator[tuple[int, Row | RowError]]:
    """Number, from 1, and row of every line that is not blank."""
    number = 0
    while raw := stream.readline(MOST_BYTES + 1):
        number += 1
        if len(raw) > MOST_BYTES:
            yield number, too_long(len(raw) + (0 if raw.endswith(b"\n") else _skip_line(stream)))
        elif not raw.isspace():
            yield number, _parse(raw)


def too_long(size: int) -> RowError:
    return RowError("too-long", f"the row has {size:,} bytes; {MOST_BYTES:,} are the most")


def _skip_line(stream: IO[bytes]) -> int:
    size = 0
    while part := stream.readline(1 << 20):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def _parse(raw: bytes) -> Row | RowError:
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
    return as_row(row, may_be_surrogate=SURROGATE_ESCAPE.search(text) is not None)


def as_row(value: Any, *, may_be_surrogate: bool) -> Row | RowError:
    """`value` if it can be a row. Only an escape brings a lone surrogate into a string that was decoded from UTF-8."""
    if not isinstance(value, dict | list):
        return RowError(
            "not-an-object", f"the row is {json_type(value)}, not an object with columns or a list of messages"
        )
    if may_be_surrogate and _has_lone_surrogate(value):
        return RowError(
            "lone-surrogate", "a string has half of a surrogate pair (\\ud800 to \\udfff), which is no text"
        )
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"`{name}` is no JSON value")


def _has_lone_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
