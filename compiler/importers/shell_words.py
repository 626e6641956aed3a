"""Shell text to words and operators, without running or expanding anything.

A word keeps its parts: literal text, and expansions as they are written. Quoting follows POSIX (Shell Command Language,
2.2) with bash's arrays; every part knows its offset in the text.
"""

import re
from dataclasses import dataclass
from typing import Literal

type PartKind = Literal["text", "variable", "arithmetic", "command"]

OPERATOR = re.compile(r"\d*(?:<<<|<<-?|>>|<|>)(?:&\d*-?)?|&>>?|;;|&&|\|\||[;&|()]")
NAME = re.compile(r"[A-Za-z_]\w*|\d|[@*#?$!-]")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(?:\[\w+\])?\+?=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`text` of an expansion is what stands between its brackets."""

    kind: PartKind
    text: str
    at: int
    quoted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A word (`parts`), an operator or a line end (`operator`). `glued`: nothing stands between it and the last."""

    at: int
    parts: tuple[Part, ...] = ()
    operator: str = ""
    glued: bool = False

    @property
    def bare(self) -> str:
        """The text of a word without expansions and quotes, for keywords and names; else empty."""
        plain = all(part.kind == "text" and not part.quoted for part in self.parts)
        return "".join(part.text for part in self.parts) if plain else ""


class ShellError(Exception):
    """Text that is no shell script. `at` is the offset."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


def tokens(text: str) -> list[Token]:
    """Raises ShellError on a quote or a bracket that is never closed."""
    found: list[Token] = []
    documents: list[str] = []
    at, glued = 0, False
    while at < len(text):
        if text.startswith("\\\n", at):
            at, glued = at + 2, False
        elif text[at] == "\n":
            found.append(Token(at=at, operator="\n"))
            at, glued = at + 1, False
            while documents:
                at = _after_document(text, at, documents.pop(0))
        elif text[at].isspace():
            at, glued = at + 1, False
        elif text[at] == "#" and not glued:
            at = _find(text, "\n", at)
        elif match := OPERATOR.match(text, at):
            found.append(Token(at=at, operator=match[0], glued=glued))
            at, glued = match.end(), True
            if match[0].lstrip("0123456789") in ("<<", "<<-"):
                delimiter = re.compile(r"\s*(['\"]?)(\w+)\1").match(text, at)
                documents += [delimiter[2]] if delimiter else []
        else:
            parts, end = word(text, at)
            found.append(Token(at=at, parts=tuple(parts), glued=glued))
            at, glued = end, True
    return found


def word(text: str, at: int, *, whole: bool = False, base: int = 0) -> tuple[list[Part], int]:
    """The parts of the word that starts at `at`, and where it ends; with `whole` all of `text` is one word.

    `base` is added to every offset.
    """
    parts: list[Part] = []
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            if text[at + 1 : at + 2] != "\n":
                parts.append(Part(kind="text", text=text[at + 1 : at + 2], at=base + at, quoted=True))
            at += 2
        elif letter == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise ShellError("a quote is not closed", base + at)
            parts.append(Part(kind="text", text=text[at + 1 : end], at=base + at + 1, quoted=True))
            at = end + 1
        elif letter == '"':
            inside, at = _double_quoted(text, at + 1, base)
            parts += inside
        elif letter in "$`":
            part, at = _expansion(text, at, base, quoted=False)
            parts.append(part)
        elif not whole and (letter.isspace() or letter in ";&|()<>"):
            break
        else:
            parts.append(Part(kind="text", text=letter, at=base + at, quoted=False))
            at += 1
    return parts, at


def _double_quoted(text: str, at: int, base: int) -> tuple[list[Part], int]:
    # An empty part makes "" a word.
    parts = [Part(kind="text", text="", at=base + at, quoted=True)]
    start = at - 1
    while at < len(text):
        letter = text[at]
        if letter == '"':
            return parts, at + 1
        if letter == "\\" and text[at + 1 : at + 2] in ("$", "`", '"', "\\", "\n"):
            escaped = "" if text[at + 1] == "\n" else text[at + 1]
            parts.append(Part(kind="text", text=escaped, at=base + at, quoted=True))
            at += 2
        elif letter in "$`":
            part, at = _expansion(text, at, base, quoted=True)
            parts.append(part)
        else:
            parts.append(Part(kind="text", text=letter, at=base + at, quoted=True))
            at += 1
    raise ShellError("a quote is not closed", base + start)


def _expansion(text: str, at: int, base: int, *, quoted: bool) -> tuple[Part, int]:
    """The expansion at `$` or a backquote; a lone `$` is text."""

    def part(kind: PartKind, start: int, end: int) -> Part:
        return Part(kind=kind, text=text[start:end], at=base + at, quoted=quoted)

    if text[at] == "`":
        end = text.find("`", at + 1)
        if end < 0:
            raise ShellError("a backquote is not closed", base + at)
        return part("command", at + 1, end), end + 1
    if text.startswith("$((", at):
        end = _closing(text, at + 1, base)
        return part("arithmetic", at + 3, end - 2), end
    if text.startswith("$(", at):
        end = _closing(text, at + 1, base)
        return part("command", at + 2, end - 1), end
    if text.startswith("${", at):
        end = _closing(text, at + 1, base)
        return part("variable", at + 2, end - 1), end
    if match := NAME.match(text, at + 1):
        return part("variable", at + 1, match.end()), match.end()
    return part("text", at, at + 1), at + 1


def _closing(text: str, at: int, base: int) -> int:
    """Behind the bracket that closes the one at `at`; those in quotes do not count."""
    opening, closing = text[at], {"(": ")", "{": "}"}[text[at]]
    depth, quote, start = 0, "", at
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in (opening, closing):
            depth += 1 if letter == opening else -1
            if depth == 0:
                return at + 1
        at += 1
    raise ShellError(f"`{opening}` is not closed", base + start)


def _after_document(text: str, at: int, delimiter: str) -> int:
    """Behind the here-document that starts at `at`."""
    while at < len(text):
        end = _find(text, "\n", at)
        line, at = text[at:end], end + 1
        if line.strip() == delimiter:
            break
    return at


def _find(text: str, what: str, at: int) -> int:
    end = text.find(what, at)
    return len(text) if end < 0 else end
