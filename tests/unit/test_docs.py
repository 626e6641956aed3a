"""What the docs repeat from data, such as the recipe schema: rewritten by --update-golden, and compared here."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.codes import CODES
from sftc.compiler.parameters import Parameters, parameters
from sftc.compiler.presets import hub_names, not_offered, preset, preset_names
from sftc.compiler.schemas import leaves, recipe_schema

LONGEST_MENU = 12
DOCS = Path(__file__).resolve().parents[2] / "docs"


def recipe_reference() -> str:
    return "\n".join(_reference()) + "\n"


def _reference() -> Iterator[str]:
    schema = recipe_schema()
    yield "# Recipe reference\n"
    yield "Every key of a recipe. Keys that are Megatron options are spelled as Megatron spells them; the last column"
    yield "names the option. A key without a default is required, except in `task`, and in `model` where"
    yield "`preset` or `hf` gives it.\n"
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
    if len(leaf.get("enum", ())) > LONGEST_MENU:
        kind = f"one of {len([value for value in leaf['enum'] if value is not None])} names"
    elif "enum" in leaf:
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


def _presets(count: Callable[[str], Parameters]) -> Iterator[str]:
    yield "| preset | exact for | layers | width | heads, groups | vocabulary | positions | parameters | per token |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in preset_names():
        values, counted = preset(name).values, count(name)
        size = {key: values[f"model.{key}"] for key in ("num_layers", "hidden_size", "vocab_size")}
        heads = f"{values['model.num_attention_heads']}, {values['model.num_query_groups']}"
        active = f"{counted.active:,}" if counted.active != counted.total else ""
        hub = "<br>".join(f"`{repository}`" for repository in hub_names(name))
        yield (
            f"| `{name}` | {hub} | {size['num_layers']} | {size['hidden_size']:,} | {heads} | {size['vocab_size']:,} | "
            f"{values['model.max_position_embeddings']:,} | {counted.total:,} | {active} |"
        )


def _not_offered() -> Iterator[str]:
    yield from (f"- `{name}`: {reason}." for name, reason in not_offered().items())


def test_the_tables_of_models_are_up_to_date(check, request: pytest.FixtureRequest) -> None:  # type: ignore[no-untyped-def]
    def count(name: str) -> Parameters:
        return parameters(check(f"preset: {name}").plan)

    page = DOCS / "models.md"
    text = page.read_text(encoding="utf-8")
    for mark, lines in {"presets": _presets(count), "not offered": _not_offered()}.items():
        table = "\n".join(lines)
        before, start, rest = text.partition(f"<!-- {mark} -->\n")
        _, end, after = rest.partition(f"\n<!-- end of {mark} -->")
        assert start, mark
        assert end, mark
        text = before + start + table + end + after
    if request.config.getoption("--update-golden"):
        page.write_text(text, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("name", "text"), [("recipe.md", recipe_reference), ("codes.md", code_reference)])
def test_the_reference_is_up_to_date(name: str, text, request: pytest.FixtureRequest) -> None:  # type: ignore[no-untyped-def]
    if request.config.getoption("--update-golden"):
        (DOCS / name).write_text(text(), encoding="utf-8")
    assert (DOCS / name).read_text(encoding="utf-8") == text()
