"""Words of a shell script with their variables in place. What only running the script would tell stays unknown.

An unknown piece of a word is the character `UNKNOWN`; why it is unknown is kept by the offset at which it stands.
"""

import ast
import operator
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .shell_words import Part, ShellError, word

UNKNOWN = "\0"
PARAMETER = re.compile(r"([A-Za-z_]\w*|\d+|[@*#?$!-])(\[[@*]\]|\[\d+\])?(?:(:?[-=+?])(.*))?", re.DOTALL)
ARITHMETIC: Mapping[type[ast.operator], Callable[[int, int], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word after expansion; `places` has the offset of each of its characters in the script."""

    text: str
    places: tuple[int, ...]

    @property
    def at(self) -> int:
        return self.places[0] if self.places else 0

    def slice(self, start: int, end: int | None = None) -> "Word":
        return Word(text=self.text[start:end], places=self.places[start:end] or self.places[:1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """`words` of an array, or the one of a scalar. `because` says why the value is not known."""

    words: tuple[Word, ...]
    because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    because: str
    name: str | None = None


@dataclass(slots=True, kw_only=True)
class Scope:
    """`given` goes before what the script says. `unknown` and `defaulted` are by offset."""

    given: Mapping[str, str]
    variables: dict[str, Variable] = field(default_factory=dict)
    unknown: dict[int, Unknown] = field(default_factory=dict)
    defaulted: dict[int, str] = field(default_factory=dict)
    rest: list[int] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def expand(self, parts: tuple[Part, ...], *, split: bool) -> list[Word]:
        """The words that `parts` become; without `split` (an assignment) exactly one."""
        fields = _Fields()
        for part in parts:
            if part.kind == "text" and part.text.isspace() and split and not part.quoted:
                fields.end()  # in a default: no word of a script holds a bare blank
                continue
            if part.kind == "text":
                fields.add(_spread(part.text, part.at), quoted=True)
                continue
            values, whole = self._values(part)
            if not split:
                fields.add(_join(values), quoted=True)
            elif part.quoted or whole:
                fields.add_all(values)
            else:
                for number, value in enumerate(values):
                    fields.add_split(value, apart=number > 0)
        return fields.words() if split else [_join(fields.words()) if fields.words() else _spread("", 0)]

    def _values(self, part: Part) -> tuple[list[Word], bool]:
        """What an expansion becomes, and whether its words are whole: blanks in them part nothing."""
        if part.kind == "command":
            return [self._unknown(part, "a command would have to be run")], False
        if part.kind == "arithmetic":
            return [self._arithmetic(part)], False
        match = PARAMETER.fullmatch(part.text)
        if match is None:
            return [self._unknown(part, f"`${{{part.text}}}` is not understood")], False
        _, index, op, argument = match.groups()
        if op and self._takes_argument(part, match):
            return self._argument(argument, part), not part.quoted
        if op and op[-1] == "+":
            return [], True
        values = self._parameter(part, match)
        return ([_join(values)] if values and part.quoted and index == "[*]" else values), False

    def _takes_argument(self, part: Part, match: re.Match[str]) -> bool:
        """Whether `${NAME:-argument}` and its like become their argument."""
        name, _, op, argument = match.groups()
        if name in self.given:
            return bool(op[-1] == "+")
        known = self.variables.get(name)
        if op[-1] == "+":
            return known is not None
        if op[-1] not in "-=" or (known and (op[0] != ":" or known.because or _join(known.words).text)):
            return False
        self.defaulted[part.at] = name
        if op[-1] == "=":
            self.variables[name] = Variable(words=tuple(self._argument(argument, part)[:1]))
        return True

    def _parameter(self, part: Part, match: re.Match[str]) -> list[Word]:
        name, index = match[1], match[2]
        if name in ("@", "*"):
            if name not in self.given:
                self.rest.append(part.at)
            return self._given(name, part) if name in self.given else []
        if name in self.given:
            self.used.add(name)
            return self._given(name, part, array=bool(index))
        known = self.variables.get(name)
        if known is None:
            return [self._unknown(part, f"`{name}` has no value in the script", name)]
        if known.because:
            return [self._unknown(part, known.because, name)]
        if index and index[1:-1].isdigit():
            return list(known.words[int(index[1:-1]) : int(index[1:-1]) + 1])
        return list(known.words) if index else list(known.words[:1])

    def _given(self, name: str, part: Part, *, array: bool = False) -> list[Word]:
        text = self.given[name]
        return [_spread(item, part.at, still=True) for item in (shlex.split(text) if array else [text])]

    def _argument(self, text: str, part: Part) -> list[Word]:
        """The default in `${NAME:-default}`, itself expanded."""
        try:
            parts, _ = word(text, 0, whole=True, base=part.at + 2)
        except ShellError:
            return [self._unknown(part, f"`{text}` is not understood")]
        return self.expand(tuple(parts), split=not part.quoted)

    def _arithmetic(self, part: Part) -> Word:
        parts, _ = word(re.sub(r"(?<![\w${])([A-Za-z_]\w*)", r"$\1", part.text), 0, whole=True, base=part.at)
        text = self.expand(tuple(parts), split=False)[0].text
        if UNKNOWN in text:
            return self._unknown(part, f"`$(({part.text}))` needs a value that is not known")
        try:
            return _spread(str(_evaluate(ast.parse(text.strip(), mode="eval").body)), part.at, still=True)
        except (SyntaxError, ValueError, ZeroDivisionError):
            return self._unknown(part, f"`$(({part.text}))` is not understood")

    def _unknown(self, part: Part, because: str, name: str | None = None) -> Word:
        self.unknown[part.at] = Unknown(because=because, name=name)
        return Word(text=UNKNOWN, places=(part.at,))


class _Fields:
    """The words of an expansion, as they grow."""

    def __init__(self) -> None:
        self._done: list[list[Word]] = []
        self._open = False
        self._hollow: set[int] = set()  # words of `"$@"` and the like, which are none if nothing else is in them

    def add(self, piece: Word, *, quoted: bool) -> None:
        """`piece` goes on with the last word; unless quoted, an empty one makes no word."""
        if not self._open and (piece.text or quoted):
            self._done.append([])
            self._open = True
        if self._open:
            self._done[-1].append(piece)

    def end(self) -> None:
        self._open = False

    def add_all(self, pieces: list[Word]) -> None:
        if not pieces:
            self._hollow.add(len(self._done) - 1)
        for number, piece in enumerate(pieces):
            if number:
                self._open = False
            self.add(piece, quoted=True)

    def add_split(self, piece: Word, *, apart: bool) -> None:
        """Blanks in an unquoted expansion part words."""
        if apart or piece.text[:1].isspace():
            self._open = False
        for number, match in enumerate(re.finditer(r"\S+", piece.text)):
            if number:
                self._open = False
            self.add(piece.slice(*match.span()), quoted=False)
        if piece.text[-1:].isspace():
            self._open = False

    def words(self) -> list[Word]:
        found = [_glue(pieces) for pieces in self._done]
        return [word for number, word in enumerate(found) if word.text or number not in self._hollow]


def _glue(pieces: list[Word]) -> Word:
    text = "".join(piece.text for piece in pieces)
    places = tuple(at for piece in pieces for at in piece.places[: len(piece.text)])
    return Word(text=text, places=places or pieces[0].places)


def _spread(text: str, at: int, *, still: bool = False) -> Word:
    return Word(text=text, places=tuple([at] * len(text) if still else range(at, at + len(text))) or (at,))


def _join(words: tuple[Word, ...] | list[Word]) -> Word:
    text, places = "", []
    for number, item in enumerate(words):
        if number:
            text += " "
            places.append(item.at)
        text += item.text
        places += item.places[: len(item.text)]
    return Word(text=text, places=tuple(places) or tuple(item.at for item in words[:1]))


def _evaluate(node: ast.expr) -> int:
    """Integers as bash counts: division cuts towards zero. Raises ValueError for anything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Div):
            return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        if type(node.op) in ARITHMETIC:
            return int(ARITHMETIC[type(node.op)](left, right))
    raise ValueError(ast.dump(node))
