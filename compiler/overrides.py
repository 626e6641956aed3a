"""`--set key=value` as documents: each override is a line of a tiny file, so that reports can point into it.

A value is read by the loader, as it would be in a recipe. Whether the key exists is the schema's business, later.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .diagnostics import Diagnostic, Span
from .loader import Place, RecipeDocument, load
from .pointers import pointer_to
from .source import SourceFile, source_from_bytes

COMMAND_LINE = "<command-line>"
OPTION = "--set "
# A dotted key, as in messages, and a value on the same line.
FORM = re.compile(r"(?P<key>[^.=\s]+(?:\.[^.=\s]+)*)=(?P<value>[^\r\n]*)")

# A plain value with a comment, which nobody writes there: within quotes, and in lists, `#` is a character.
COMMENT = re.compile(r"""(?!\s*["'\[{])(?:.*\s)?#""")


def problem(override: str) -> str | None:
    """Why `override` is no `key=value` that a recipe could take, or None."""
    match = FORM.fullmatch(override)
    if match is None:
        return f"`{override}` is not of the form section.key=value, on one line"
    if match["key"].split(".")[0] == "base":
        return "a base is named in a recipe, not on the command line"
    if COMMENT.match(match["value"]):
        return (
            f"in `{override}` the `#` would begin a comment of YAML; write the value with quotes: {match['key']}='...'"
        )
    return None


def read_overrides(overrides: Sequence[str]) -> tuple[SourceFile | None, list[RecipeDocument], list[Diagnostic]]:
    """The tiny file, and a document for each override without errors, in their order. Each must have no `problem`."""
    lines = "".join(f"{OPTION}{override}\n" for override in overrides)
    source, found = source_from_bytes(lines.encode("utf-8", "surrogateescape"), COMMAND_LINE)
    if source is None:
        return None, [], found
    documents = []
    for number, override in enumerate(overrides):
        document, more = _read(source, number, override)
        found += more
        if document is not None:
            documents.append(document)
    return source, documents, found


def _read(source: SourceFile, number: int, override: str) -> tuple[RecipeDocument | None, list[Diagnostic]]:
    match = FORM.fullmatch(override)
    assert match is not None
    keys = match["key"].split(".")
    start = len(OPTION) + match.start("value")
    # The value where it stands, behind a key of one letter: whatever is wrong with it is reported at its own place.
    read, found = load(replace(source, text="\n" * number + "v:".ljust(start) + match["value"]))
    pointer = pointer_to(keys)
    found = [replace(item, pointer=item.pointer and _moved(item.pointer, pointer)) for item in found]
    if read is None:
        return None, found

    def span(first: int, last: int) -> Span:
        return Span(file=source.name, line=number + 1, column=first + 1, end_line=number + 1, end_column=last + 1)

    end = len(OPTION) + len(override)
    places = {"": Place(key=None, value=span(len(OPTION), end))}
    at = len(OPTION)
    for depth, key in enumerate(keys, 1):
        behind = at + len(key)
        places[pointer_to(keys[:depth])] = Place(key=span(at, behind), value=span(behind + 1, end))
        at = behind + 1
    inside = {_moved(inner, pointer): place for inner, place in read.places.items() if inner.startswith("/v/")}
    if match["value"]:
        places[pointer] = replace(places[pointer], value=read.places["/v"].value)
    data: Any = read.data["v"]
    for key in reversed(keys):
        data = {key: data}
    broken = frozenset(_moved(inner, pointer) for inner in read.broken)
    return RecipeDocument(source=source, data=data, places=places | inside, broken=broken), found


def _moved(inner: str, pointer: str) -> str:
    return pointer + inner.removeprefix("/v")
