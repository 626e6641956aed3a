"""YAML of other tools, with the place of every value. Files build on others by `extends`, `includes` or `bases`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diagnostics import Diagnostic, Severity, Span
from ..loader import RecipeDocument, load
from ..pointers import join
from ..source import SourceFile, read_source

BUILDS_ON = ("extends", "includes", "bases")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One value of a file: a scalar, a list or an empty mapping. `key` is None for an item that has none."""

    pointer: str
    value: Any
    key: Span
    span: Span
    text: str
    file: str


@dataclass(slots=True, kw_only=True)
class Files:
    """The files read so far, for reports, and `diagnostics` about them.

    `partial` once a file that they build on is missing.
    """

    sources: dict[str, str]
    diagnostics: list[Diagnostic]
    partial: bool = False


def read_leaves(
    path: Path, name: str, files: Files, *, preset: bool = False, above: tuple[Path, ...] = ()
) -> list[Leaf] | None:
    """Every value of the file at `path` and of those that it builds on; the last word on a pointer wins.

    None if the file itself cannot be read. A file that a `preset` builds on may be missing.
    """
    source, found = read_source(path, name)
    files.diagnostics += found
    if source is None:
        return None
    files.sources[name] = source.text
    document, found = load(source)
    files.diagnostics += [one for one in found if not _repeats_itself(one, source)]
    if document is None:
        return None
    leaves: dict[str, Leaf] = {}
    for base in _built_on(document, files):
        if (here := path.parent / base.value) in (*above, path) or len(above) > 8:
            files.diagnostics.append(_problem(f"`{base.value}` builds on itself", base.span, "remove the line"))
        elif not here.is_file():
            help = "what it sets is not in the recipe: copy it to the place that the line names"
            severity = Severity.WARNING if preset else Severity.ERROR
            files.diagnostics.append(_problem(f"there is no file `{base.value}`", base.span, help, severity))
            files.partial = True
        else:
            short = base.value.rpartition("/")[2]
            below = read_leaves(here, short, files, preset=preset, above=(*above, path))
            leaves |= {leaf.pointer: leaf for leaf in below or []}
    for leaf in _leaves(document, document.data, ""):
        if leaf.pointer.split("/")[1] not in BUILDS_ON:
            # A mapping in the place of a value, or the other way round, replaces all of it.
            inside = [other for other in leaves if other.startswith(leaf.pointer + "/")]
            for other in (*inside, *_above(leaf.pointer)):
                leaves.pop(other, None)
            leaves[leaf.pointer] = leaf
    return list(leaves.values())


def _above(pointer: str) -> Iterator[str]:
    while pointer := pointer.rpartition("/")[0]:
        yield pointer


def _built_on(document: RecipeDocument, files: Files) -> Iterator[Leaf]:
    for word in BUILDS_ON:
        value = document.data.get(word)
        for number, item in enumerate(value if isinstance(value, list) else [] if value is None else [value]):
            pointer = join(join("", word), number) if isinstance(value, list) else join("", word)
            leaf = _leaf(document, pointer, item)
            if isinstance(item, str):
                yield leaf
            else:
                files.diagnostics.append(_problem(f"`{word}` names no file", leaf.span, "write the name of a file"))


def _leaves(document: RecipeDocument, value: Any, pointer: str) -> Iterator[Leaf]:
    if isinstance(value, dict) and (value or not pointer):
        for name, child in value.items():
            yield from _leaves(document, child, join(pointer, name))
    else:
        yield _leaf(document, pointer, value)


def _leaf(document: RecipeDocument, pointer: str, value: Any) -> Leaf:
    place = document.places[pointer]
    text = document.source.slice(place.value)
    name = document.source.name
    return Leaf(pointer=pointer, value=value, key=place.key or place.value, span=place.value, text=text, file=name)


def _repeats_itself(one: Diagnostic, source: SourceFile) -> bool:
    """A key given twice with the same value leaves nothing to choose; published presets have such."""
    if one.code != "SFTC114" or one.span is None or one.related[0].span is None:
        return False
    lines = source.text.split("\n")
    return lines[one.span.line - 1].split("#")[0].strip() == lines[one.related[0].span.line - 1].split("#")[0].strip()


def _problem(message: str, span: Span, help: str, severity: Severity = Severity.ERROR) -> Diagnostic:
    return Diagnostic(code="SFTC706", severity=severity, message=message, span=span, help=help)
