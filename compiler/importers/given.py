"""`--set KEY=VALUE`: values of a recipe from the command line."""

from collections.abc import Iterable
from typing import Any

from ..scalars import resolve_plain
from ..schemas import leaves
from ..suggest import closest


class GivenError(ValueError):
    """A word that gives no value to a key of a recipe."""


def read_given(words: Iterable[str]) -> dict[str, Any]:
    """Dotted key → value, read as YAML reads a bare word. Raises GivenError."""
    keys = dict(leaves())
    free = tuple(f"{key}." for key, schema in keys.items() if schema["type"] == "object")
    given = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise GivenError(f"`{word}` is no KEY=VALUE")
        if key not in keys and not key.startswith(free):
            guess = closest(key, keys)
            raise GivenError(f"a recipe has no key `{key}`" + (f"; did you mean `{guess}`?" if guess else ""))
        value, refusal = resolve_plain(text)
        given[key] = text if refusal or value is None else value
    return given
