"""Phrases about values and schemas, shared by the handlers of `validate`."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .scalars import resolve_plain

_LONGEST = 40

_NEEDED = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "`true` or `false`",
    "array": "a list",
    "object": "a mapping",
}

LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "greater than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (str, "string"),
    (int, "integer"),
    (float, "decimal number"),
    (list, "list"),
    (dict, "mapping"),
)


def alternatives(phrases: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`; each phrase once."""
    *most, last = dict.fromkeys(phrases)
    return f"{', '.join(most)} or {last}" if most else last


def needed(types: str | Sequence[str]) -> str:
    """JSON Schema's `type` as a phrase; null goes without saying."""
    names = [types] if isinstance(types, str) else [name for name in types if name != "null"]
    if "number" in names:
        names = [name for name in names if name != "integer"]
    return alternatives(_NEEDED[name] for name in names) if names else "no value"


def found(value: Any, raw: str) -> str:
    """A value as a phrase; `raw` is its text in the recipe."""
    if value is None:
        return "nothing"
    kind = next(name for type_, name in _KINDS if isinstance(value, type_))
    if isinstance(value, (list, dict)):
        return f"a {kind}"
    return (
        f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} of several lines" if "\n" in raw else f"the {kind} {quoted(raw)}"
    )


def quoted(raw: str) -> str:
    """Text of the recipe between backticks, on one line and not too long."""
    line = raw.strip().split("\n")[0]
    return f"`{line}`" if len(line) <= _LONGEST and line == raw.strip() else f"`{line[:_LONGEST]}...`"


def menu(values: Iterable[Any]) -> list[str]:
    """The values of an `enum` as they are written in YAML, null left out."""
    return [f"`{written(value)}`" for value in values if value is not None]


def written(value: Any) -> str:
    """A value as YAML on one line, quoted only where it has to be."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value) and resolve_plain(value) == (value, None):
        return value
    return json.dumps(value, ensure_ascii=False)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def line_to_add(key: str, schema: Mapping[str, Any]) -> str | None:
    """`lr: 1e-05`, from the schema's first example or its default; None for what needs more than a line."""
    for value in (*schema.get("examples", ()), schema.get("default")):
        if value is not None and not isinstance(value, (dict, list)):
            return f"{key}: {written(value)}"
    return None
