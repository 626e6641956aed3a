"""docs/recipe.md is the recipe schema in prose: rewritten by --update-golden, and compared here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.codes import CODES
from sftc.compiler.schemas import leaves, recipe_schema

DOCS = Path(__file__).resolve().parents[2] / "docs"


def recipe_reference() -> str:
    return "\n".join(_reference()) + "\n"


def _reference() -> Iterator[str]:
    schema = recipe_schema()
    yield "# Recipe reference\n"
    yield "Every key of a recipe. Keys that are Megatron options are spelled as Megatron spells them; the last column"
    yield "names the option. A key without a default is required, except in `task`.\n"
    yield "| key | what it is | type | default | Megatron |"
    yield "|---|---|---|---|---|"
    for name, section in schema["properties"].items():
        if "properties" not in section:
            yield _row(name, section)
    for name, section in schema["properties"].items():
        if "properties" in section:
            yield f"\n## {name}\n"
            yield section["description"] + "\n"
            yield "| key | what it is | type | default | Megatron |"
            yield "|---|---|---|---|---|"
            for key, leaf in leaves(section):
                yield _row(key, leaf)


def _row(key: str, leaf: dict[str, Any]) -> str:
    kinds = leaf["type"] if isinstance(leaf["type"], list) else [leaf["type"]]
    kind = " or ".join(name for name in kinds if name != "null")
    if "enum" in leaf:
        kind = ", ".join(f"`{value}`" for value in leaf["enum"] if value is not None)
    default = (
        f"`{json.dumps(leaf['default'])}`" if leaf.get("default") is not None else "" if "default" in leaf else "—"
    )
    options = [leaf.get("x-megatron"), leaf.get("x-megatron-false"), *leaf.get("x-megatron-cases", {}).values()]
    flags = " ".join(f"`{option}`" for option in options if option)
    return f"| `{key}` | {leaf['description'].replace('|', chr(92) + '|')} | {kind} | {default} | {flags} |"


def code_reference() -> str:
    rows = [f"## {code}: {entry.title}\n\n{entry.explanation}\n" for code, entry in CODES.items()]
    return "# Error codes\n\n" + "\n".join(rows)


@pytest.mark.parametrize(("name", "text"), [("recipe.md", recipe_reference), ("codes.md", code_reference)])
def test_the_reference_is_up_to_date(name: str, text, request: pytest.FixtureRequest) -> None:  # type: ignore[no-untyped-def]
    if request.config.getoption("--update-golden"):
        (DOCS / name).write_text(text(), encoding="utf-8")
    assert (DOCS / name).read_text(encoding="utf-8") == text()
