"""A JSON file that is one array of rows, in memory bounded by its largest row.

A row that is JSON but no row is reported like any other bad row. Where the array itself is malformed, nobody can say
where the next row begins, and reading ends with a UserError at the line.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from .jsonrows import MOST_BYTES, SURROGATE_ESCAPE, as_row, too_long
from .rows import Row, RowError

CHUNK = 1 << 18
WHITESPACE = re.compile(r"[ \t\n\r]*")
# What the `surrogateescape` handler makes of bytes that are not UTF-8.
NOT_UTF8 = re.compile("[\udc80-\udcff]")


def json_array(stream: IO[bytes], path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """Line on which it begins, from 1, and row, of every row."""
    window = _Window(stream, path)
    if (first := window.next()) != "[":
        found = "nothing" if not first else f"`{first}`"
        help = "if it has one object per line, name it `.jsonl`" if first == "{" else "put the rows between `[` and `]`"
        raise UserError(
            f"{path}:{window.line}: not-json an array of rows is wanted; the file begins with {found}", help
        )
    window.skip(window.at + 1)
    if window.next() == "]":
        window.skip(window.at + 1)
    else:
        while True:
            window.next()
            yield window.line, window.row()
            comma = window.next()
            if comma not in (",", "]"):
                raise window.broken(f"`,` or `]` is wanted after a row, not `{comma}`" if comma else "")
            window.skip(window.at + 1)
            if comma == "]":
                break
    if rest := window.next():
        raise window.broken(f"nothing may follow the array, and `{rest}` does")


class _Window:
    """The part of the text that is being parsed: `at` is the place in it, on the line `line` of the file."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.path = path
        self.line = 1
        self.at = 0
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text = ""
        self._is_last = False
        self._constants: list[str] = []
        self._json = json.JSONDecoder(parse_constant=self._constants.append)

    def skip(self, to: int) -> None:
        self.line += self._text.count("\n", self.at, to)
        self.at = to

    def next(self) -> str:
        """The next character that is not white space, which `at` stands at then; empty at the end of the file."""
        while True:
            match = WHITESPACE.match(self._text, self.at)
            assert match is not None
            self.skip(match.end())
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def row(self) -> Row | RowError:
        """The value at `at`, which is passed."""
        while True:
            self._constants.clear()
            try:
                value, end = self._json.raw_decode(self._text, self.at)
            except RecursionError:
                raise self.broken("nested too deeply") from None
            except json.JSONDecodeError as error:
                # What is malformed may only be cut off by the window's end.
                if not self._is_last and len(self._text) - self.at <= MOST_BYTES:
                    self._more()
                    continue
                self._refuse(error)
            # A number goes on in what is not yet there.
            if end == len(self._text) and self._more():
                continue
            return self._checked(value, end)

    def _checked(self, value: Any, end: int) -> Row | RowError:
        start = self.at
        self.skip(end)
        if end - start > MOST_BYTES:
            return too_long(len(self._text[start:end].encode("utf-8", "surrogateescape")))
        if NOT_UTF8.search(self._text, start, end):
            return RowError("not-utf8", "a byte of the row is not UTF-8")
        if self._constants:
            return RowError("not-json", f"`{self._constants[0]}` is no JSON value")
        return as_row(value, may_be_surrogate=SURROGATE_ESCAPE.search(self._text, start, end) is not None)

    def _refuse(self, error: json.JSONDecodeError) -> None:
        size = len(self._text) - self.at
        at_end = not self._text[error.pos :].strip() or error.msg.startswith("Unterminated")
        if self._is_last and at_end:
            raise self.broken("") from None
        if at_end:
            raise self.broken(
                f"a row has more than {size - 1:,} characters; {MOST_BYTES:,} bytes are the most"
            ) from None
        self.skip(error.pos)
        raise self.broken(error.msg[:1].lower() + error.msg[1:]) from None

    def _more(self) -> bool:
        """Drop what is passed and read as much again as is left, so that a long row is parsed few times."""
        left = self._text[self.at :]
        raw = self._stream.read(max(CHUNK, len(left)))
        self._is_last = not raw
        self._text, self.at = left + self._decode(raw, self._is_last), 0
        return bool(raw)

    def broken(self, what: str) -> UserError:
        """What to raise; with no word of `what`, the file is cut off."""
        code = "not-json" if what else "truncated"
        told = what or "the file ends in the middle of the array; it is cut off"
        return UserError(f"{self.path}:{self.line}: {code} {told}; nothing was stored", "mend or copy the file")
