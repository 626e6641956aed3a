"""What was made from what: digests of every input and output, as an in-toto statement with SLSA provenance.

The statement holds no time, no host and no path outside the build dir, so that equal inputs give equal bytes. The
recipe and its bases are digested by their data, not their text: a comment changes no artifact. Overrides stand there
as they are.

Formats: in-toto Statement v1 and SLSA Provenance v1 (predicate); `SHA256SUMS` is what coreutils' sha256sum reads.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import __version__
from .loader import RecipeDocument
from .overrides import COMMAND_LINE
from .plan import Plan
from .render import Artifact, template_names, template_text, to_json
from .schemas import schema_text
from .wording import written

MANIFEST, SUMS, ORIGINS = "manifest.json", "SHA256SUMS", "origins.json"
BUILD_TYPE = "urn:sftc:compile:1"


def make_manifest(artifacts: Iterable[Artifact], recipe: RecipeDocument, plan: Plan) -> Artifact:
    """manifest.json over `artifacts`, made from the data of all layers of `recipe`."""
    layers = {layer.label: layer.data for layer in recipe.layers}
    parameters: dict[str, Any] = {"name": plan.name, "recipe": {"sha256": _digest(_canonical(layers[None]))}}
    if overrides := dict(sorted(_flat(layers.get(COMMAND_LINE, {})))):
        parameters["overrides"] = overrides
    dependencies = [_entry(f"base/{base.label}", _canonical(base.data)) for base in recipe.bases]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [_entry(artifact.path, artifact.content) for artifact in artifacts],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": {"megatron": plan["megatron.target"]},
                "resolvedDependencies": [
                    *dependencies,
                    *(_entry(name, text.encode()) for name, text in _dependencies(plan)),
                ],
            },
            "runDetails": {"builder": {"id": "urn:sftc:builder", "version": {"sftc": __version__}}},
        },
    }
    return Artifact(path=MANIFEST, content=to_json(statement))


def make_sums(artifacts: Iterable[Artifact]) -> Artifact:
    """SHA256SUMS over `artifacts`: what launch.sh verifies before it starts anything."""
    lines = [f"{_digest(artifact.content)}  {artifact.path}\n" for artifact in artifacts]
    return Artifact(path=SUMS, content="".join(lines).encode())


def read_sums(content: bytes) -> dict[str, str]:
    """Path → sha256 of a SHA256SUMS file; lines of another form are left out."""
    pairs = (line.split("  ", 1) for line in content.decode("utf-8", "replace").splitlines())
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def overrides_in(content: bytes) -> list[str]:
    """What `--set` said, as it is typed, by the manifest `content`; nothing if it is no manifest."""
    try:
        found = json.loads(content)["predicate"]["buildDefinition"]["externalParameters"].get("overrides", {})
        return [f"{key}={written(value)}" for key, value in found.items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _dependencies(plan: Plan) -> Iterable[tuple[str, str]]:
    for name in ("recipe.schema.json", f"megatron/{plan['megatron.target']}.json"):
        yield f"schema/{name}", schema_text(name)
    for name in template_names(plan):
        yield f"templates/{name}.j2", template_text(name)
    if plan["launch.hardware"] is not None:
        yield "schema/hardware.json", schema_text("hardware.json")
    if plan.chat_template is not None:
        yield "chat_template", plan.chat_template
    yield from {hook.file: hook.text for hook in plan.hooks if hook.file and hook.text is not None}.items()
    if plan.shape is not None:
        yield plan.shape.name, plan.shape.text


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that `data` says."""
    for name, value in data.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _canonical(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": _digest(content)}}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
