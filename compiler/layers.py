"""A recipe with what it extends and what overrides it, as one document: bases below, `--set` above.

Mappings are merged key by key; anything else, null included, replaces. Every value keeps the place where it stands.
What a base says about itself, `name` and `description`, stays behind: two runs of one name would share a directory.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from .diagnostics import Diagnostic, Related, Severity, Span, has_errors
from .loader import Layer, RecipeDocument, load
from .overrides import COMMAND_LINE, read_overrides
from .plan import FromOverride, FromRecipe, Merged
from .pointers import join
from .source import SourceFile, read_source
from .wording import found as found_value

BASE = "base"
ABOUT_ITSELF = ("name", "description")
HELP = f"`{BASE}` is a path relative to the recipe that names it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """`document` is None if the recipe itself is none. `sources` are all texts that diagnostics may point into."""

    document: RecipeDocument | None
    sources: tuple[SourceFile, ...]
    diagnostics: list[Diagnostic]


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A recipe file as read. `path` is None for standard input."""

    path: Path | None
    label: str | None
    document: RecipeDocument

    @property
    def name(self) -> str:
        return self.document.source.name

    @property
    def folder(self) -> Path:
        return Path() if self.path is None else self.path.parent


def read_layers(path: Path | None, name: str, overrides: Sequence[str] = ()) -> Reading:
    """Read the recipe at `path` (None: standard input), called `name` in messages, with its bases and overrides.

    Where a base cannot be had, keys that it may hold are not missed.
    """
    source, found = read_source(path, name)
    return with_layers(source, found, path, overrides)


def with_layers(
    source: SourceFile | None, found: list[Diagnostic], path: Path | None, overrides: Sequence[str] = ()
) -> Reading:
    """The same for a `source` that is read, from `path` if it has one, with what was `found` in doing so."""
    if source is None:
        return Reading(document=None, sources=(), diagnostics=found)
    sources = [source]
    document, more = load(source)
    found += more
    if document is None:
        return Reading(document=None, sources=(source,), diagnostics=found)
    files = [_File(path=path, label=None, document=document)]
    is_open = False
    while not is_open and _names_base(files[-1].document):
        below, read, more = _below(files)
        found += more
        sources += [read] if read else []
        files += [below] if below else []
        is_open = below is None
    parts = [_stripped(file) for file in reversed(files)]
    layers = [
        Layer(source=file.document.source, label=file.label, data=file.document.data, folder=file.folder)
        for file in reversed(files)
    ]
    if overrides:
        line, upper, more = read_overrides(overrides)
        found += more
        is_open |= has_errors(more)
        parts += upper
        if line:
            sources.append(line)
            data = reduce(_merged, upper).data if upper else {}
            layers.append(Layer(source=line, label=COMMAND_LINE, data=data, folder=Path()))
    whole = replace(reduce(_merged, parts), source=source, layers=tuple(layers))
    if is_open:
        whole = replace(whole, broken=whole.broken | set(_open_ends(whole.data, "")))
    return Reading(document=whole, sources=tuple(sources), diagnostics=found)


def origin_of(document: RecipeDocument, pointer: str, value: Any) -> FromRecipe | FromOverride | Merged:
    """The layer that states `value`, which is at `pointer`; for a mapping those of its entries."""
    if not isinstance(value, dict) or not value:
        return _origin_at(document, pointer)
    entries = tuple((name, _origin_at(document, join(pointer, name))) for name in value)
    first = entries[0][1]
    return first if all(origin == first for _, origin in entries) else Merged(entries=entries)


def start_of(document: RecipeDocument, pointer: str) -> tuple[Path, str]:
    """The folder that the compile-time path at `pointer` starts from, and what messages call it."""
    layer = document.layer(document.places[pointer].value)
    assert layer is not None
    return layer.folder, "the current directory" if layer.label == COMMAND_LINE else "the recipe that names it"


def _origin_at(document: RecipeDocument, pointer: str) -> FromRecipe | FromOverride:
    layer = document.layer(document.places[pointer].value)
    label = layer.label if layer else None
    return FromOverride() if label == COMMAND_LINE else FromRecipe(file=label)


def _names_base(document: RecipeDocument) -> bool:
    return document.data.get(BASE) is not None or f"/{BASE}" in document.broken


def _below(files: Sequence[_File]) -> tuple[_File | None, SourceFile | None, list[Diagnostic]]:
    """The base of the last of `files`, its text as far as it could be read, and what is wrong with it."""
    top = files[-1]
    wanted, span = top.document.data[BASE], top.document.places[f"/{BASE}"].value
    if f"/{BASE}" in top.document.broken:
        return None, None, []
    if not isinstance(wanted, str) or not wanted:
        seen = found_value(wanted, top.document.text(span))
        return None, None, [_error("SFTC202", f"`{BASE}` needs the path of a recipe, found {seen}", span)]
    if wanted.startswith("/"):
        message = f"the base `{wanted}` is an absolute path, which other machines do not have"
        return None, None, [_error("SFTC132", message, span)]
    path, name = top.folder / wanted, posixpath.join(posixpath.dirname(top.name), wanted)
    source, found = read_source(path, name)
    document = None
    if source is not None:
        places = [file.path and file.path.resolve() for file in files]
        if path.resolve() in places:
            names = [file.name for file in files[places.index(path.resolve()) :]]
            circle = " -> ".join(f"`{one}`" for one in [*names, names[0]])
            return None, None, [_error("SFTC131", f"the bases go in a circle: {circle}", span)]
        document, more = load(source)
        found += more
    found = [_told_at(item, span) for item in found]
    if document is None:
        return None, source, found
    label = posixpath.join(posixpath.dirname(top.label or ""), wanted)
    return _File(path=path, label=label, document=document), source, found


def _told_at(item: Diagnostic, span: Span) -> Diagnostic:
    """A report about a base, with the place that names it."""
    if item.span is None:
        return replace(item, span=span, pointer=f"/{BASE}", help=HELP)
    return replace(item, related=(*item.related, Related(message="it is named as a base here", span=span)))


def _error(code: str, message: str, span: Span) -> Diagnostic:
    return Diagnostic(code=code, severity=Severity.ERROR, message=message, span=span, pointer=f"/{BASE}", help=HELP)


def _stripped(file: _File) -> RecipeDocument:
    """Without what is about the file alone."""
    own = (BASE,) if file.label is None else (BASE, *ABOUT_ITSELF)
    document = file.document
    return replace(
        document,
        data={key: value for key, value in document.data.items() if key not in own},
        places={at: place for at, place in document.places.items() if at.removeprefix("/") not in own},
        broken=document.broken - {f"/{key}" for key in own},
    )


def _merged(lower: RecipeDocument, upper: RecipeDocument) -> RecipeDocument:
    """`upper` over `lower`. A section that both have is where the upper file has it, or where any file has it."""
    places, broken = dict(lower.places), set(lower.broken)
    is_file = upper.source.name != COMMAND_LINE

    def merge(low: Mapping[str, Any], high: Mapping[str, Any], pointer: str) -> dict[str, Any]:
        if is_file:
            places[pointer] = upper.places[pointer]
        data = dict(low)
        for key, value in high.items():
            child = join(pointer, key)
            if isinstance(value, dict) and isinstance(low.get(key), dict):
                data[key] = merge(low[key], value, child)
                continue
            for gone in [at for at in places if _is_within(at, child)]:
                del places[gone]
            broken.difference_update([at for at in broken if _is_within(at, child)])
            places.update({at: place for at, place in upper.places.items() if _is_within(at, child)})
            data[key] = value
        return data

    data = merge(lower.data, upper.data, "")
    return replace(lower, data=data, places=places, broken=frozenset(broken | upper.broken))


def _is_within(pointer: str, parent: str) -> bool:
    return pointer == parent or pointer.startswith(f"{parent}/")


def _open_ends(data: Mapping[str, Any], pointer: str) -> Iterator[str]:
    """The marks of mappings that may have lost keys."""
    yield join(pointer, "<<")
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _open_ends(value, join(pointer, key))
