"""The recipe as text: in the order of the schema, each value with the line that it comes from."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..scalars import resolve_plain
from ..schemas import leaves, optional_section, recipe_schema
from ..wording import written
from .ledger import Entry, Fate, Value

MODELINE = "# yaml-language-server: $schema=recipe.schema.json"
LONGEST = 120
# What no shape has a default for, and what gives all of it at once where recipes have that.
SIZES = tuple(
    f"model.{name}"
    for name in (
        "num_layers",
        "hidden_size",
        "ffn_hidden_size",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
    )
)
SHAPES = ("model.preset", "model.hf")


def recipe_text(values: Mapping[str, Value], entries: list[Entry], title: str) -> str:
    """`values` by dotted key. Required keys without one are left as comments to fill in."""
    stated = {key: value for key, value in values.items() if not _by_default(key, value)}
    lines = [MODELINE, f"# {title}"]
    for name, schema in recipe_schema()["properties"].items():
        if "properties" not in schema:
            lines += _line(name, stated[name], "") if name in stated else []
            continue
        section = list(_section(name, schema, stated, ""))
        lines += ["", *section] if section else []
    return "\n".join([*lines, *_left_out(entries)]) + "\n"


def _section(prefix: str, schema: Mapping[str, Any], stated: Mapping[str, Value], indent: str) -> Iterator[str]:
    inner = indent + "  "
    body: list[str] = []
    missing: list[str] = []
    for name, child in schema["properties"].items():
        key = f"{prefix}.{name}"
        if "properties" in child:
            body += _section(key, child, stated, inner)
        elif child["type"] == "object":
            entries = sorted(other for other in stated if other.startswith(f"{key}."))
            body += [f"{inner}{name}:"] if entries else []
            body += [line for entry in entries for line in _line(entry, stated[entry], inner + "  ", key)]
        elif key in stated:
            body += _line(key, stated[key], inner)
        elif is_missing(key, stated):
            missing.append(f"# {name}: is missing ({child['title'][0].lower()}{child['title'][1:]})")
    if body:
        yield f"{indent}{prefix.rpartition('.')[2]}:"
        yield from [f"{inner}{comment}" for comment in missing]
        yield from body
    elif missing:
        yield from [f"{indent}{comment}" for comment in missing]
        yield f"{indent}{prefix.rpartition('.')[2]}: {{}}"


def is_missing(key: str, stated: Mapping[str, Value]) -> bool:
    """Whether a recipe has to say `key`, or another in its place, and does not."""
    if key == "data.train_data_path":
        return not {key, "data.sources"} & set(stated)
    if key == "model.load":
        return not {key, "model.init"} & set(stated)
    if key.startswith("model."):
        return key in SIZES and not {key, *SHAPES} & set(stated)
    section = optional_section(key)
    if section is not None and not any(one.startswith(f"{section}.") for one in stated):
        return False
    schema, required = recipe_schema(), False
    for part in key.split("."):
        required = part in schema.get("required", ())
        schema = schema["properties"][part]
    return required and key not in stated


def _line(key: str, value: Value, indent: str, prefix: str | None = None) -> list[str]:
    name = key.removeprefix(f"{prefix}.") if prefix else key.rpartition(".")[2]
    line = f"{indent}{name}: {spelled(value.value, value.text)}"
    return [_cut(f"{line} # {value.comment}", max(LONGEST, len(line)))]


def example(key: str) -> str:
    """The schema's first example of a value, as a word."""
    return str(dict(leaves())[key]["examples"][0])


def spelled(value: Any, text: str) -> str:
    """A value as YAML on one line; a number as the source spells it, where that is the same number to YAML."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        same, refusal = resolve_plain(text) if text else (None, None)
        if refusal is None and same == value and type(same) is type(value) and text[0].isdigit():
            return text
        return json.dumps(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return written(value)


def _by_default(key: str, value: Value) -> bool:
    """What only a preset or a default of the source says, and the recipe's own default says too."""
    schema = dict(leaves()).get(key, {})
    own = value.setting.own if value.setting else False
    return not own and value.setting is not None and value.value == schema.get("default", ...)


def _left_out(entries: list[Entry]) -> Iterator[str]:
    left = [entry for entry in entries if entry.fate is Fate.UNMAPPED]
    if not left:
        return
    yield ""
    yield f"# Not mapped ({len(left)}):"
    for entry in left:
        yield _cut(f"#   {entry.setting.where}: {entry.setting.shown}", 72) + f"  -- {entry.note}"


def _cut(line: str, longest: int = LONGEST) -> str:
    line = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", line)
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
