"""A build dir as it lies there, or as a recipe would compile to: its texts, its plan and the places behind its values.

Reads only; whether the files are still what was compiled is the business of `builddir`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .manifest import BUILD_TYPE, MANIFEST, ORIGINS, SUMS, read_sums
from .render import Artifact

PLAN = "plan.json"


class NotBuilt(Exception):
    """The message says why a directory is no build dir."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One value of a plan. `origin` is as plan.json spells it; `place` is `file:line:column`, if the recipe says it."""

    value: Any
    origin: Mapping[str, Any]
    place: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """`texts` are the artifacts by name; `values` the entries of the plan by dotted key, `name` first."""

    name: str
    texts: Mapping[str, str]
    plan: Mapping[str, Any]
    values: Mapping[str, Entry]
    places: Mapping[str, str]

    def is_edited(self, path: str) -> bool:
        """Whether the artifact `path` is not what was compiled."""
        digest = read_sums(self.texts.get(SUMS, "").encode()).get(path)
        return digest is not None and digest != hashlib.sha256(self.texts[path].encode()).hexdigest()


def read_built(directory: Path, name: str, *, needs_places: bool = True) -> Built:
    """The build dir at `directory`, called `name`. NotBuilt if it is none, or its plan cannot be read.

    needs_places: whether it is none without origins.json, which the copies in run directories may lack.
    """
    texts = {}
    try:
        sums = (directory / SUMS).read_bytes()
        has_places = needs_places or (directory / ORIGINS).is_file()
        for path in (*(path for path in read_sums(sums) if Path(path).name == path), SUMS, *([ORIGINS] * has_places)):
            texts[path] = (directory / path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotBuilt(f"{name} is no build dir: {error}") from None
    if BUILD_TYPE not in texts.get(MANIFEST, ""):
        raise NotBuilt(f"{name} is no build dir: it has no {MANIFEST} of sftc")
    try:
        return _built(name, texts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotBuilt(f"the plan in {name} cannot be read: {error!r}") from None


def built_of(artifacts: Iterable[Artifact], name: str) -> Built:
    """What a recipe without errors compiles to."""
    return _built(name, {artifact.path: artifact.content.decode() for artifact in artifacts})


def _built(name: str, texts: Mapping[str, str]) -> Built:
    plan, origins = json.loads(texts[PLAN]), json.loads(texts.get(ORIGINS, '{"keys": {}}'))
    places = {key: f"{at['file']}:{at['line']}:{at['column']}" for key, at in origins["keys"].items()}
    values = {"name": Entry(value=plan["name"], origin={"from": "recipe"}, place=places.get("name"))}
    if plan["description"] is not None:
        values["description"] = Entry(
            value=plan["description"], origin={"from": "recipe"}, place=places.get("description")
        )
    values |= {key: _entry(node, places.get(key)) for key, node in _leaves(plan["values"])}
    return Built(name=name, texts=texts, plan=plan, values=values, places=places)


def _entry(node: Mapping[str, Any], place: str | None) -> Entry:
    return Entry(value=node["value"], origin=node["origin"], place=place)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Mapping[str, Any]]]:
    for name, child in node.items():
        if set(child) == {"value", "origin"}:
            yield prefix + name, child
        else:
            yield from _leaves(child, f"{prefix}{name}.")


def origin_words(origin: Mapping[str, Any], place: str | None) -> str:
    """An origin on one line: the place in a recipe, `default`, or the name of what gave the value."""
    kind = origin["from"]
    if kind == "recipe":
        return place or "the recipe"
    if kind == "override":
        return f"--set, {place}" if place else "--set"
    if kind == "merged":
        return ", ".join(f"{name}: {origin_words(one, one.get('file'))}" for name, one in origin["entries"].items())
    if kind == "derived":
        return f"derived: {origin['rule']}"
    words = f"preset {origin['preset']}" if kind == "preset" else str(kind)
    own = "".join(f", {name}: the recipe" for name in origin.get("recipe", ()))
    return words + own
