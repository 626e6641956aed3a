"""A shell script read from top to bottom: assignments, arrays, and the one command that starts Megatron.

Nothing is run. What a condition or a loop assigns is not known afterwards; functions are read where they stand.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from .expansion import Scope, Variable, Word
from .shell_words import ASSIGNMENT, Token, tokens

OPENING = {"if": "fi", "for": "done", "while": "done", "until": "done", "case": "esac", "select": "done"}
DECLARING = frozenset({"export", "declare", "local", "readonly", "typeset"})
# Commands that hardly fail: what `&&` adds behind one is no condition.
PASSING = frozenset({"cd", "mkdir", "set", "echo", "printf", "ulimit", "module", "source", ".", "export", "unset", ":"})
READING = frozenset({"read", "mapfile", "readarray", "getopts", "printf"})
SEPARATORS = frozenset({"\n", ";", "&", "&&", "||", "|", ";;"})
LAUNCHERS = frozenset({"torchrun", "torch.distributed.run", "torch.distributed.launch"})
TELLTALE = frozenset({"--num-layers", "--micro-batch-size", "--train-iters", "--train-samples", "--seq-length"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The words of a command that starts Megatron; `launcher` is the index of torchrun among them, if it is there."""

    words: tuple[Word, ...]
    launcher: int | None
    at: int


@dataclass(slots=True, kw_only=True)
class Script:
    """`exported` variables by name; `hidden` are offsets of commands that stand where they are not read, with why."""

    scope: Scope
    commands: list[Command] = field(default_factory=list)
    exported: dict[str, Word] = field(default_factory=dict)
    hidden: list[tuple[int, str]] = field(default_factory=list)
    bare: list[Word] = field(default_factory=list)


def read_script(text: str, given: Mapping[str, str]) -> Script:
    """`given` are values of variables that go before the script's own. Raises ShellError."""
    script = Script(scope=Scope(given=given))
    _Reader(script, tokens(text), text).run()
    return script


class _Reader:
    def __init__(self, script: Script, found: list[Token], text: str) -> None:
        self.script, self.tokens, self.text = script, found, text
        self.next = 0

    def run(self) -> None:
        joined, passing = "\n", True
        while self.next < len(self.tokens):
            token = self.tokens[self.next]
            if token.bare in OPENING:
                self._skip_compound(token)
            elif token.operator in SEPARATORS:
                joined = token.operator
                self.next += 1
            elif token.operator or token.bare in ("{", "}", "function", "!", "time", "exec", "then", "do"):
                # A function's name and brackets, redirections of a compound: nothing that matters.
                self.next += 1
            else:
                doubtful = joined == "||" or (joined == "&&" and not passing)
                passing = self._simple(doubtful)
                joined = "\n"

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def _skip_compound(self, start: Token) -> None:
        """What is assigned in a condition or a loop is not known from here on."""
        ends = [OPENING[start.bare]]
        because = f"it depends on the `{start.bare}` in line {self._line(start.at)}"
        if start.bare in ("for", "select"):
            self._forget(self.tokens[self.next + 1].bare, because)
        self.next += 1
        leading = True
        while ends and self.next < len(self.tokens):
            token = self.tokens[self.next]
            if leading and token.bare in OPENING:
                ends.append(OPENING[token.bare])
            elif leading and token.bare == ends[-1]:
                ends.pop()
            elif token.parts:
                self._forget_assigned(token, because)
                if PurePosixPath(token.bare).name in LAUNCHERS:
                    self.script.hidden.append((token.at, because))
            leading = token.operator in (*SEPARATORS, "(", ")") or token.bare in ("then", "do", "else", "elif", "in")
            self.next += 1

    def _forget_assigned(self, token: Token, because: str) -> None:
        if match := ASSIGNMENT.match(_text(token)):
            self._forget(match[0].rstrip("+=").partition("[")[0], because)

    def _forget(self, name: str, because: str) -> None:
        if name:
            self.script.scope.variables[name] = Variable(words=(), because=because)

    def _simple(self, doubtful: bool) -> bool:
        """One command up to its separator; whether it is one that hardly fails."""
        start = self.next
        words: list[Token] = []
        first = ""
        assigned: list[tuple[str, bool, tuple[Token, ...] | Token]] = []
        while self.next < len(self.tokens) and (token := self.tokens[self.next]).operator not in SEPARATORS:
            self.next += 1
            if token.operator:
                if token.operator == ")":
                    continue
                if token.operator == "(":
                    break  # a function's brackets, a subshell: its commands are read like any other
                self.next += 0 if "&" in token.operator and token.operator[-1] in "0123456789-" else 1  # its target
                continue
            match = ASSIGNMENT.match(_text(token))
            if match and (not words or first in DECLARING):
                name = match[0].rstrip("+=")
                assigned.append((name, match[0].endswith("+="), self._array() or _after(token, match.end())))
            else:
                words.append(token)
                first = first or token.bare
        if not words or first in DECLARING:
            self._assign(assigned, doubtful, start, exports=first == "export")
            if first == "export":
                self._export_names(words[1:])
            return True
        if first in READING or first == "unset":
            for token in words[1:]:
                self._forget(token.bare, f"`{first}` in line {self._line(token.at)} sets it")
            return first in PASSING
        self._command(words, assigned)
        return first in PASSING

    def _array(self) -> tuple[Token, ...] | None:
        """The words in brackets behind `NAME=`, if there are any."""
        if self.next >= len(self.tokens) or self.tokens[self.next].operator != "(" or not self.tokens[self.next].glued:
            return None
        self.next += 1
        inside = []
        while self.next < len(self.tokens) and self.tokens[self.next].operator != ")":
            if self.tokens[self.next].parts:
                inside.append(self.tokens[self.next])
            self.next += 1
        self.next += 1
        return tuple(inside) or (Token(at=0),)

    def _assign(
        self, assigned: list[tuple[str, bool, tuple[Token, ...] | Token]], doubtful: bool, start: int, *, exports: bool
    ) -> None:
        scope = self.script.scope
        for name, adds, value in assigned:
            if doubtful or "[" in name:
                line = self._line(self.tokens[start].at)
                self._forget(name.partition("[")[0], f"line {line} sets it on a condition")
                continue
            if isinstance(value, tuple):
                words = tuple(word for token in value for word in scope.expand(token.parts, split=True))
            else:
                words = tuple(scope.expand(value.parts, split=False))
            old = scope.variables.get(name)
            if adds and old:
                because = old.because
                joined = (*old.words, *words) if isinstance(value, tuple) else _append(old.words, words)
                scope.variables[name] = Variable(words=joined, because=because)
            else:
                scope.variables[name] = Variable(words=words)
            if exports and words and not isinstance(value, tuple):
                self.script.exported[name] = words[0]

    def _export_names(self, words: list[Token]) -> None:
        for token in words:
            if known := self.script.scope.variables.get(token.bare):
                self.script.exported[token.bare] = (*known.words, Word(text="", places=()))[0]

    def _command(self, tokens_: list[Token], assigned: list[tuple[str, bool, tuple[Token, ...] | Token]]) -> None:
        words = [word for token in tokens_ for word in self.script.scope.expand(token.parts, split=True)]
        if words and words[0].text == "eval":
            words = [part for word in words[1:] for part in _again(word)]
        texts = [word.text for word in words]
        if not texts:
            return
        if texts[0].startswith("--"):
            self.script.bare += words
            return
        if "-c" in texts and any(PurePosixPath(text).name in ("bash", "sh") for text in texts):
            if any(launcher in text for text in texts for launcher in (*LAUNCHERS, ".py ")):
                self.script.hidden.append((words[0].at, "it is text for `bash -c`"))
            return
        launcher = next((n for n, text in enumerate(texts) if PurePosixPath(text).name in LAUNCHERS), None)
        if launcher is None and not (any(text.endswith(".py") for text in texts) and TELLTALE & set(texts)):
            return
        self.script.commands.append(Command(words=tuple(words), launcher=launcher, at=words[0].at))
        for name, _, value in assigned:
            if isinstance(value, Token):
                self.script.exported[name] = self.script.scope.expand(value.parts, split=False)[0]


def _text(token: Token) -> str:
    """The literal beginning of a word."""
    text = ""
    for part in token.parts:
        if part.kind != "text" or part.quoted:
            break
        text += part.text
    return text


def _after(token: Token, count: int) -> Token:
    """The word without its first `count` characters, all literal."""
    return Token(at=token.at, parts=token.parts[count:])


def _append(old: tuple[Word, ...], new: tuple[Word, ...]) -> tuple[Word, ...]:
    first = old[0] if old else Word(text="", places=())
    text = Word(text=first.text + new[0].text, places=(*first.places[: len(first.text)], *new[0].places))
    return (text, *old[1:])


def _again(word: Word) -> Iterator[Word]:
    """The words that `eval` would see in one."""
    start = 0
    for piece in word.text.split():
        start = word.text.index(piece, start)
        yield word.slice(start, start + len(piece))
        start += len(piece)
