"""Bytes to text: a recipe is UTF-8 with line feeds, and every character in it can be seen.

Cannot follow `base:` or any other reference; it reads the one file that it is given.
"""

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from .diagnostics import Diagnostic, Severity, Span

# A recipe is a few kilobytes. Reading YAML takes about 10 s per MB, so that this bounds the time to about a second.
MAX_BYTES = 128 * 1024

# C0 but tab and line feed, DEL, C1, line and paragraph separators (which some readers count as line ends),
# the marks that reorder text on screen (Unicode TR 36), an inner byte order mark, the two non-characters, and
# surrogates, which only an escape in a quoted text can spell.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)

_WIDE_MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """`text` has line feeds only and no byte order mark; `sha256` is of the bytes as they lie on disk."""

    name: str
    text: str
    sha256: str

    def slice(self, span: Span) -> str:
        """The text that `span` covers."""
        lines = self.text.split("\n")[span.line - 1 : span.end_line]
        lines[-1] = lines[-1][: span.end_column - 1]
        lines[0] = lines[0][span.column - 1 :]
        return "\n".join(lines)


def read_source(path: Path | None, name: str) -> tuple[SourceFile | None, list[Diagnostic]]:
    """Read the file at `path`, or standard input when it is None; `name` is what messages call it."""
    try:
        if path is None:
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        return None, [_error("SFTC102", f"`{name}` is a directory, not a recipe", help="name the YAML file in it")]
    except FileNotFoundError:
        return None, [_error("SFTC101", f"there is no file `{name}`", help="check the path and the current directory")]
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or str(error)
        return None, [_error("SFTC101", f"`{name}` cannot be read: {reason}")]
    return source_from_bytes(raw, name)


def source_from_bytes(raw: bytes, name: str) -> tuple[SourceFile | None, list[Diagnostic]]:
    """Decode one recipe; the errors are those of its size, its encoding and its unseen characters."""
    if len(raw) > MAX_BYTES:
        limit = f"{MAX_BYTES // 1024} KiB"
        message = f"`{name}` is larger than {limit}, the limit for a recipe"
        return None, [_error("SFTC105", message, help="was a data file named by mistake?")]
    digest = hashlib.sha256(raw).hexdigest()
    for mark, encoding in _WIDE_MARKS:
        if raw.startswith(mark):
            return None, [_error("SFTC103", f"`{name}` is {encoding}, not UTF-8", _one_character(name, ""), _SAVE)]
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = _line_feeds(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        before = _line_feeds(raw[: error.start].decode("utf-8"))
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8 ({error.reason})"
        return None, [_error("SFTC103", message, _one_character(name, before), _SAVE)]
    unseen = [
        _error("SFTC104", f"the invisible character U+{ord(match[0]):04X} is not allowed", _at(name, text, match))
        for match in UNSEEN.finditer(text)
    ]
    if unseen:
        return None, unseen
    return SourceFile(name=name, text=text, sha256=digest), []


_SAVE = "save the file as UTF-8"


def _line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _at(name: str, text: str, match: re.Match[str]) -> Span:
    return _one_character(name, text[: match.start()])


def _one_character(name: str, before: str) -> Span:
    line = before.count("\n") + 1
    column = len(before) - before.rfind("\n")
    return Span(file=name, line=line, column=column, end_line=line, end_column=column + 1)


def _error(code: str, message: str, span: Span | None = None, help: str | None = None) -> Diagnostic:
    return Diagnostic(code=code, severity=Severity.ERROR, message=message, span=span, help=help)
