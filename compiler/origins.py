"""Where each line of an artifact comes from: artifact line → recipe key, file, line and column.

Kept outside the identity of the build dir: a comment in the recipe moves lines and changes nothing else.
"""

import json
from pathlib import PurePath

from .loader import RecipeDocument
from .manifest import ORIGINS
from .render import Artifact, to_json

# Artifacts whose lines end in `# key.path`.
ARGUMENT_FILES = ("megatron.args", "megatron.cpu.args")


def make_origins(artifacts: tuple[Artifact, ...], document: RecipeDocument) -> Artifact:
    """origins.json over the artifacts whose lines name a recipe key, plus every value of plan.json by its key.

    The entries of a free mapping and the items of a list have keys of their own.
    """
    name = PurePath(document.source.name).name
    labels = {layer.source.name: layer.label or name for layer in document.layers}
    places: dict[str, dict[str, str | int]] = {
        pointer.removeprefix("/").replace("/", "."): {
            "file": labels[at.value.file],
            "line": at.value.line,
            "column": at.value.column,
        }
        for pointer, at in document.places.items()
    }
    lines = {artifact.path: _lines(artifact, places) for artifact in artifacts if artifact.path in ARGUMENT_FILES}
    plan = json.loads(next(artifact.content for artifact in artifacts if artifact.path == "plan.json"))
    stated = ("name", "description", *_keys(plan["values"]))
    keys = {key: at for top in stated for key, at in places.items() if key == top or key.startswith(f"{top}.")}
    return Artifact(path=ORIGINS, content=to_json({"recipe": name, "keys": keys, "lines": lines}))


def _lines(artifact: Artifact, places: dict[str, dict[str, str | int]]) -> dict[str, dict[str, str | int]]:
    found = {}
    for number, line in enumerate(artifact.content.decode().splitlines(), 1):
        _, mark, key = line.rpartition("  # ")
        if mark and key in places:
            found[str(number)] = {"key": key, **places[key]}
    return found


def _keys(node: dict[str, object], prefix: str = "") -> list[str]:
    if set(node) == {"value", "origin"}:
        return [prefix.removesuffix(".")]
    return [key for name, child in node.items() if isinstance(child, dict) for key in _keys(child, f"{prefix}{name}.")]
