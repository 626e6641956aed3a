"""The schemas themselves, and the files that are said to follow them."""

import hashlib
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from sftc.compiler.resolve import DERIVATIONS
from sftc.compiler.schemas import leaves, load_schema, recipe_schema

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = sorted(path for path in (ROOT / "tests/golden/expected").iterdir())
SCHEMAS = sorted(path.name for path in (ROOT / "schema").glob("*.json"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(load_schema(name))


def test_every_key_of_a_recipe_is_described_for_an_editor() -> None:
    for key, schema in leaves():
        assert schema["title"], key
        assert schema["description"].endswith("."), key
        assert Draft202012Validator(schema).is_valid(schema["examples"][0]), key
        for example in [*schema["examples"], *([schema["default"]] if "default" in schema else [])]:
            assert Draft202012Validator(schema).is_valid(example), (key, example)


def test_a_key_has_a_default_or_is_required_or_decides_the_task() -> None:
    def required(schema: dict, prefix: str) -> set[str]:  # type: ignore[type-arg]
        names = {f"{prefix}{name}" for part in (schema, schema.get("then", {})) for name in part.get("required", [])}
        for name, child in schema["properties"].items():
            if "properties" in child:
                names |= required(child, f"{prefix}{name}.")
        return names

    wanted = required(recipe_schema(), "")
    for key, schema in leaves():
        assert ("default" in schema) != (key in wanted or key.startswith("task.")), key


def test_no_section_takes_unknown_keys() -> None:
    def walk(schema: dict, where: str) -> None:  # type: ignore[type-arg]
        assert schema["additionalProperties"] is False, where
        for name, child in schema["properties"].items():
            if "properties" in child:
                walk(child, f"{where}/{name}")

    walk(recipe_schema(), "")


def test_what_is_derived_is_null_by_default() -> None:
    defaults = {key: schema.get("default") for key, schema in leaves()}
    for derivation in DERIVATIONS:
        assert defaults.get(derivation.key) is None
        known = {*defaults, *(other.key for other in DERIVATIONS)}
        assert set(derivation.inputs) <= known


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_plans_and_manifests_follow_their_schemas(golden: Path) -> None:
    for name in ("plan", "manifest"):
        document = json.loads((golden / f"{name}.json").read_text())
        Draft202012Validator(load_schema(f"{name}.schema.json")).validate(document)
        assert not Draft202012Validator(load_schema(f"{name}.schema.json")).is_valid({**document, "time": "now"})


def test_a_lock_follows_its_schema() -> None:
    lock = json.loads((ROOT / "tests/golden/expected/derived/recipe.lock").read_text())
    validator = Draft202012Validator(load_schema("lock.schema.json"))
    validator.validate(lock)
    assert not validator.is_valid({**lock, "time": "now"})


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_the_manifest_digests_what_lies_there(golden: Path) -> None:
    manifest = json.loads((golden / "manifest.json").read_text())
    digests = {entry["name"]: entry["digest"]["sha256"] for entry in manifest["subject"]}
    names = {path.name for path in golden.iterdir()} - {"manifest.json", "SHA256SUMS", "origins.json", "MODES.json"}
    assert set(digests) == names
    for name, digest in digests.items():
        assert hashlib.sha256((golden / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_every_value_of_the_recipe_is_found_in_it(golden: Path) -> None:
    """origins.json points at the place in the recipe where the value stands."""
    origins = json.loads((golden / "origins.json").read_text())
    candidates = [*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("tests/golden/cases/*.yaml")]
    recipe = next(path for path in candidates if path.stem == golden.name or path.parent.name == golden.name)
    assert origins["recipe"] == recipe.name
    for key, place in origins["keys"].items():
        lines = (recipe.parent / place["file"]).read_text().splitlines()
        # A block begins on the line below its key; an item of a list has a dash in the place of one.
        word = key.rsplit(".", 1)[-1]
        assert ("- " if word.isdigit() else word) in "".join(lines[max(0, place["line"] - 2) : place["line"]]), key
    arguments = (golden / "megatron.args").read_text().splitlines()
    assert origins["lines"]["megatron.args"]
    for number, place in origins["lines"]["megatron.args"].items():
        assert arguments[int(number) - 1].endswith(f"  # {place['key']}")
