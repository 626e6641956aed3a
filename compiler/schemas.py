"""The data files of `sftc.schema`, read once. Knows where they lie, not what they mean."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def schema_text(name: str) -> str:
    """The text of one file of the schema folder, such as `recipe.schema.json` or `megatron/0.19.json`."""
    return (files("sftc.schema") / name).read_text(encoding="utf-8")


@cache
def load_schema(name: str) -> Any:
    """The same file, parsed."""
    return json.loads(schema_text(name))


@cache
def recipe_schema() -> Any:
    """What a recipe may say."""
    return load_schema("recipe.schema.json")


def optional_section(key: str) -> str | None:
    """The section that `key` stands in, if a recipe may leave it out: what it requires is then not required."""
    *sections, _ = key.split(".")
    schema, is_required = recipe_schema(), True
    for part in sections:
        is_required = part in schema.get("required", ())
        schema = schema["properties"][part]
    return None if is_required else ".".join(sections)


def switch_of(key: str) -> str | None:
    """The innermost section around `key` that asks for something when it is there: it is optional and requires keys.

    Without it none of its keys means anything.
    """
    sections = key.split(".")[:-1]
    schema, found = recipe_schema(), None
    for depth, part in enumerate(sections, 1):
        is_required = part in schema.get("required", ())
        schema = schema["properties"][part]
        if not is_required and "required" in schema:
            found = ".".join(sections[:depth])
    return found


def leaves(schema: dict[str, Any] | None = None, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of a recipe that holds a value: dotted key and its schema, in the order of the schema.

    An object without `properties` (a free mapping, such as `megatron.args`) is a value.
    """
    for name, child in (schema or recipe_schema())["properties"].items():
        key = f"{prefix}{name}"
        if "properties" in child:
            yield from leaves(child, f"{key}.")
        else:
            yield key, child
