"""The keys of a recipe brought up to date: renamed ones and misplaced ones, in its text, with every comment kept.

Only what leaves no choice is done: a name with exactly one meaning here, a key with exactly one home. A key that was
probably misspelled is left to its author. Each edit is proven: the text is read again, and has to say what it said
before, under the new key. There is no version number in a recipe: a key never changes its meaning, it gets a new name.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .loader import Place, RecipeDocument, load
from .pointers import dotted, join, pointer_to, split
from .schemas import recipe_schema
from .source import SourceFile
from .suggest import Kind, remedy

_CERTAIN = (Kind.MISPLACED, Kind.RENAMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """`done` are pairs of dotted keys, before and after; `left` says which keys could not be moved, and why."""

    text: str
    done: tuple[tuple[str, str], ...] = ()
    left: tuple[str, ...] = ()


def migrate(source: SourceFile) -> Migration:
    """`source` with every key renamed or moved that has one place to go."""
    done: list[tuple[str, str]] = []
    left: dict[str, str] = {}
    while edit := _next(source, left):
        pointer, target, text = edit
        done.append((dotted(pointer), dotted(target)))
        source = replace(source, text=text)
    return Migration(text=source.text, done=tuple(done), left=tuple(left.values()))


def _next(source: SourceFile, left: dict[str, str]) -> tuple[str, str, str] | None:
    """The next edit: the pointer of a key, the pointer it gets, and the text then. Adds to `left` what cannot be."""
    document, _ = load(source)
    if document is None or document.broken:
        return None
    for pointer, target in _certain(document):
        if pointer in left:
            continue
        text = _edited(document, pointer, target)
        if text is not None and _says_the_same(document, text, pointer, target):
            return pointer, target, text
        reason = "is given as well" if target in document.places else "its lines cannot be moved"
        left[pointer] = f"`{dotted(pointer)}` belongs to `{dotted(target)}`, and {reason}: do it by hand"
    return None


def _certain(document: RecipeDocument) -> Iterator[tuple[str, str]]:
    """Pointers of keys that nobody reads, each with the one that was meant beyond doubt."""
    for pointer, schema in _unknown(document.data, recipe_schema(), ""):
        section, _, key = pointer.rpartition("/")
        found = remedy(split(f"/{key}")[0], dotted(section), list(schema.get("properties", ())), recipe_schema())
        if found.kind in _CERTAIN and len(found.paths) == 1 and "[]" not in found.paths[0]:
            yield pointer, pointer_to(found.paths[0].split("."))


def _unknown(
    data: Mapping[str, Any], schema: Mapping[str, Any], pointer: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Keys without a schema, with that of their section; of a section that nobody knows, the keys in it."""
    for key, value in data.items():
        child, known = join(pointer, key), schema.get("properties", {}).get(key)
        if isinstance(value, dict) and (known is None or "properties" in known) and not _is_mapping(key):
            yield from _unknown(value, known or {}, child)
        elif known is None:
            yield child, schema


def _is_mapping(key: str) -> bool:
    """Whether an unknown `key` is another name for a free mapping, such as `launch.environment`."""
    found = remedy(key, "", (), recipe_schema())
    if found.kind is not Kind.RENAMED:
        return False
    node: Any = recipe_schema()
    for part in found.paths[0].split("."):
        node = node["properties"][part]
    return node["type"] == "object" and "properties" not in node


def _edited(document: RecipeDocument, pointer: str, target: str) -> str | None:
    """The text with the key renamed or moved; None where it stands among others on its line, or its target is there."""
    if target in document.places:
        return None
    if pointer.rpartition("/")[0] == target.rpartition("/")[0]:
        key = document.places[pointer].key
        assert key is not None
        lines = document.source.text.split("\n")
        line = lines[key.line - 1]
        lines[key.line - 1] = line[: key.column - 1] + split(target)[-1] + line[key.end_column - 1 :]
        return "\n".join(lines)
    return _moved(document, pointer, target)


def _moved(document: RecipeDocument, pointer: str, target: str) -> str | None:
    lines = document.source.text.split("\n")
    first, last = _block(lines, document.places[pointer])
    if first is None:
        return None
    key = document.places[pointer].key
    assert key is not None
    block = lines[first : last + 1]
    name = lines[key.line - 1]
    block[key.line - 1 - first] = name[: key.column - 1] + split(target)[-1] + name[key.end_column - 1 :]
    # The deepest section on the way to the target that is there.
    parents = split(target)[:-1]
    missing: list[str] = []
    while parents and pointer_to(parents) not in document.places:
        missing.insert(0, parents.pop())
    home = pointer_to(parents)
    indent = _indent(document, home)
    if indent is None:
        return None
    new = [f"{' ' * (indent + 2 * depth)}{name}:" for depth, name in enumerate(missing)]
    width = indent + 2 * len(missing)
    margin = key.column - 1
    # What is indented less than the key is a comment, or nothing.
    new += [line if line[:margin].strip() or not line.strip() else " " * width + line[margin:] for line in block]
    if home:
        at = document.places[home].value.end_line
    else:
        at = len(lines) - (lines[-1] == "")
        new = ["", *new] if missing else new
    header = _emptied(document, pointer)
    kept: list[str] = []
    for number, line in enumerate(lines):
        if number == at:
            kept += new
        if not first <= number <= last and number != header:
            kept.append(line)
    return "\n".join(kept + (new if at == len(lines) else []))


def _block(lines: list[str], place: Place) -> tuple[int | None, int]:
    """The lines of an entry, from 0, with the comments right above it; None if it shares a line with another."""
    key, end = place.key, place.value.end_line - 1
    assert key is not None
    before = lines[key.line - 1][: key.column - 1]
    if place.value.end_column == 1:  # a block of text ends where the next line begins
        end, after = end - 1, ""
    else:
        after = lines[end][place.value.end_column - 1 :]
    if before.strip() or not re.fullmatch(r"\s*(#.*)?", after):
        return None, end
    first = key.line - 1
    while first and re.fullmatch(rf"{before}#.*", lines[first - 1]):
        first -= 1
    return first, end


def _indent(document: RecipeDocument, section: str) -> int | None:
    """Of the keys in a block section; None for one in braces."""
    if not section:
        return 0
    keys = [at.key for pointer, at in document.places.items() if pointer.rpartition("/")[0] == section]
    own = document.places[section].key
    if own and document.source.slice(document.places[section].value) == "":
        return own.column + 1
    if not keys or own is None or keys[0] is None or keys[0].line == own.line:
        return None
    if len({key.column for key in keys if key}) > 1:
        return None
    return keys[0].column - 1


def _emptied(document: RecipeDocument, pointer: str) -> int | None:
    """The line, from 0, of the section that has no other key."""
    section = pointer.rpartition("/")[0]
    siblings = [other for other in document.places if other.rpartition("/")[0] == section]
    key = document.places[section].key if section else None
    return key.line - 1 if key and len(siblings) == 1 else None


def _says_the_same(document: RecipeDocument, text: str, pointer: str, target: str) -> bool:
    """Whether `text` is the recipe with one value under another key, and nothing else changed."""
    edited, _ = load(replace(document.source, text=text))
    if edited is None:
        return False
    wanted = json.loads(json.dumps(document.data))
    *parents, key = split(pointer)
    trail = [wanted]
    for part in parents:
        trail.append(trail[-1][part])
    value = trail[-1].pop(key)
    if parents and not trail[-1]:
        del trail[-2][parents[-1]]
    node = wanted
    *parents, key = split(target)
    for part in parents:
        node[part] = node.get(part) or {}
        node = node[part]
    node[key] = value
    same: bool = edited.data == wanted
    return same
