"""The ways a value may enter a generated file, each with its own type.

A template renders nothing else: `render` rejects any expression whose result is not of the type of its template, so a
bare `{{ value }}` cannot slip through review.
"""

import re
import shlex
from collections.abc import Iterable
from html import escape

from .wording import written


class QuotingError(ValueError):
    """The value cannot be written in this place at all."""


class ShellWord(str):
    """Exactly one word of bash, whatever it holds."""

    __slots__ = ()


class ShellWords(str):
    """Any number of words of bash, parted by blanks."""

    __slots__ = ()


class SbatchWord(str):
    """The value of one `#SBATCH` directive."""

    __slots__ = ()


class PyLiteral(str):
    """A Python literal."""

    __slots__ = ()


class ArgumentLine(str):
    """The words of one line of the argument file, which is read back with `shlex.split(line, comments=True)`."""

    __slots__ = ()


class YamlScalar(str):
    """One value of YAML on its line."""

    __slots__ = ()


class HtmlText(str):
    """Text between tags, or a quoted attribute's value."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


class Comment(str):
    """Text behind a `#`, to the end of its line."""

    __slots__ = ()


def sh(value: str | int) -> ShellWord:
    """`value` as one bash word."""
    return ShellWord(shlex.quote(str(value)))


def words(values: Iterable[str | int]) -> ShellWords:
    """Each of `values` as one bash word."""
    return ShellWords(" ".join(map(sh, values)))


def sbatch(value: str | int) -> SbatchWord:
    """`value` as a directive's value: sbatch splits on blanks and knows double quotes; it reads one line."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", text):
        return SbatchWord(text)
    if any(ord(character) < 32 or character == '"' for character in text):
        raise QuotingError(f"{text!r} cannot stand in an #SBATCH directive")
    escaped = text.replace("\\", "\\\\")
    return SbatchWord(f'"{escaped}"')


def py(value: str | int | float | bool | tuple[float, ...] | None) -> PyLiteral:
    """`value` as a Python literal, with double quotes where that is as good."""
    if isinstance(value, str):
        plain = value.isprintable() and '"' not in value and "\\" not in value
        return PyLiteral(f'"{value}"' if plain else repr(value))
    return PyLiteral(repr(value))


def yaml(value: str | int | float | bool) -> YamlScalar:
    """`value` as a YAML value, in quotes where a bare word would be read as something else."""
    return YamlScalar(written(value))


def html(value: str | int | float) -> HtmlText:
    """`value` as text of a page: no markup, whatever it holds."""
    return HtmlText(escape(str(value), quote=True))


def note(value: str) -> Comment:
    """`value` as the rest of a comment line; a line break would end the comment and is refused."""
    if not value.isprintable():
        raise QuotingError(f"{value!r} cannot stand in a comment")
    return Comment(value)


def argument(option: str, values: tuple[str, ...]) -> ArgumentLine:
    """`option` and its values. A value that starts with `-` is joined with `=`, or argparse takes it for an option."""
    if len(values) == 1 and values[0].startswith("-"):
        return ArgumentLine(shlex.quote(f"{option}={values[0]}"))
    return ArgumentLine(" ".join([option, *(shlex.quote(value) for value in values)]))
