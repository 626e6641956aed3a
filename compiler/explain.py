"""What a code, a recipe key or a Megatron option is, in words. Where a line of a build dir comes from is in `trace`."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .built import Built
from .codes import CODES
from .megatron import key_options
from .options import Option, managed_options, option_table
from .pages import code_page
from .schemas import leaves, optional_section, recipe_schema
from .suggest import ADVICE, APART, SYNONYMS, closest, key_paths
from .trace import trace_key
from .wording import LIMITS, menu, needed, written


class Unknown(Exception):
    """The message names what is not known, and what was probably meant."""


def explain_code(code: str) -> str:
    if code not in CODES:
        near = ", ".join(other for other in CODES if other[:5] == code[:5])
        first, *_, last = CODES
        raise Unknown(f"there is no code `{code}`; there are {near or f'codes from {first} to {last}'}")
    return code_page(code)


def find_key(word: str) -> str:
    """The dotted key or section that `word` names: itself, or by its last part, or as other tools call it."""
    paths = key_paths(recipe_schema())
    name = re.sub(r"\[\d+\]", "[]", word.removeprefix("/").replace("/", ".").replace("-", "_"))
    mapping, _, entry = name.rpartition(".")
    if name in paths or (mapping in _free_mappings() and entry):
        return name
    homes = [path for path in paths if path.rpartition(".")[2] == name and "[]" not in path]
    if len(homes) > 1:
        homes = [home for home in homes if not home.startswith(f"{APART}.")]
    if len(homes) > 1:
        raise Unknown(f"`{word}` is a key of several sections: {', '.join(f'`{home}`' for home in homes)}")
    if homes:
        return homes[0]
    if name in SYNONYMS:
        return SYNONYMS[name]
    if name in ADVICE:
        raise Unknown(f"there is no key `{word}`: {ADVICE[name]}")
    near = closest(name, paths) or closest(name, [path.rpartition(".")[2] for path in paths])
    raise Unknown(f"there is no key `{word}`{_meant(near)}")


def _free_mappings() -> list[str]:
    """Keys whose entries have any names."""
    return [key for key, schema in leaves() if schema["type"] == "object"]


def explain_key(key: str, built: Built | None = None) -> str:
    """A key of the recipe, a section or an entry of a free mapping; with `built` also its value there, and why."""
    mapping = key.rpartition(".")[0]
    schema = _at(mapping if mapping in _free_mappings() else key)
    title, description = schema.get("title"), schema.get("description", "")
    lines = [
        f"{key}: {title}" if title else key,
        *textwrap.wrap(description, 98, initial_indent="  ", subsequent_indent="  "),
        "",
    ]
    if "properties" in schema:
        lines += _table((name, child.get("title", "")) for name, child in schema["properties"].items())
    else:
        lines += _table(_facts(key, schema))
    if built and "properties" not in schema:
        lines += ["", f"in {built.name}:", *trace_key(built, key).lines("  ")]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def explain_option(name: str, target: str, built: Built | None = None) -> str:
    """An option of Megatron `target`: what it takes, and how a recipe sets it."""
    table = option_table(target)
    if name not in table:
        others = [other for other in targets() if other != target and name in option_table(other)]
        there = f"; Megatron {', '.join(others)} has it" if others else _meant(closest(name, table))
        raise Unknown(f"Megatron {target} has no option `{name}`{there}")
    option = table[name]
    lines = [f"{name}: an option of Megatron-Core {target}", ""]
    lines += _table(_option_facts(name, option, target))
    if built:
        given = [item for item in built.plan["arguments"] if table[item["option"]].dest == option.dest]
        lines += ["", f"in {built.name}:"]
        for item in given:
            lines.append(f"  {' '.join([item['option'], *item['values']])}")
            if "key" in item:
                lines += trace_key(built, item["key"]).lines("    ")
            else:
                lines.append(f"    set by sftc: {item['reason']}")
        lines += [] if given else ["  not set: Megatron's default holds"]
    return "\n".join(lines) + "\n"


def targets() -> list[str]:
    """The versions of Megatron that a recipe may name."""
    versions: list[str] = _at("megatron.target")["enum"]
    return versions


def default_target() -> str:
    version: str = _at("megatron.target")["default"]
    return version


def _at(key: str) -> Mapping[str, Any]:
    """The schema of a dotted key; `data.sources[].path` is a key of each source."""
    node: Any = recipe_schema()
    for part in key.split("."):
        node = node["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            node = node["items"]
        while "$ref" in node:
            node = _at(node["$ref"].removeprefix("#/properties/").replace("/properties/", "."))
    found: Mapping[str, Any] = node
    return found


def _facts(key: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    limits = [f"{phrase} {schema[word]}" for word, phrase in LIMITS.items() if word in schema]
    if "enum" in schema:
        yield "value", f"one of {', '.join(menu(schema['enum']))}"
    elif "enum" in (items := schema.get("items", {})):
        yield "value", f"a list of {', '.join(menu(items['enum']))}"
    else:
        yield "value", ", ".join([needed(schema["type"]), *limits])
    if "pattern" in schema:
        yield "pattern", schema["pattern"]
    yield from _default(key, schema)
    for example in schema.get("examples", ()):
        yield "example", f"{key.rpartition('.')[2]}: {written(example)}"
    options = dict.fromkeys(option for name, option in key_options() if name == key)
    if options:
        yield "Megatron", ", ".join(options)
    names = [f"`{name}`" for name, path in SYNONYMS.items() if path == key]
    if names:
        yield "other names", ", ".join(names)


def _default(key: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "default" in schema:
        yield "default", "not set" if schema["default"] is None else written(schema["default"])
    elif key.startswith("task.") or "[]" in key:
        yield "default", "not set"
    elif section := optional_section(key):
        yield "default", f"none: the key is required where there is a section `{section}`"
    else:
        yield "default", "none: the key is required"


def _option_facts(name: str, option: Option, target: str) -> Iterator[tuple[str, str]]:
    if len(option.strings) > 1:
        yield "also", ", ".join(string for string in option.strings if string != name)
    yield "value", _values(option)
    if option.choices is not None:
        yield "choices", ", ".join(str(choice) for choice in option.choices)
    yield "default", json.dumps(option.default)
    table = option_table(target)
    keys = [key for key, string in key_options() if string in table and table[string].dest == option.dest]
    if name in managed_options():
        yield "set by", f"sftc; {managed_options()[name]}"
    elif keys:
        yield "set by", ", ".join(f"`{key}`" for key in dict.fromkeys(keys))
    else:
        value = {"int": "1", "float": "0.5"}.get(option.type, "value")
        value = "true" if option.is_flag else str(option.choices[0]) if option.choices else value
        value = value if option.nargs in (None, "?") else f"[{value}]"
        yield "set by", f"`{name.removeprefix('--').replace('-', '_')}: {value}` under `megatron.args`"


def _values(option: Option) -> str:
    if option.is_flag:
        return "none: it is a flag"
    counts = {None: "one value", "?": "one value or none", "+": "one or more values", "*": "any number of values"}
    count = f"{option.nargs} values" if isinstance(option.nargs, int) else counts[option.nargs]
    return f"{count} of type {option.type}"


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max((len(label) for label, _ in rows), default=0)
    return [f"  {label:<{width}}  {text}" for label, text in rows]


def _meant(near: str | None) -> str:
    return f"; did you mean `{near}`?" if near else ""


def completions(start: str) -> list[str]:
    """The codes, keys and options that begin with `start`."""
    words = [*CODES, *(key for key, _ in leaves())]
    if start.startswith("-"):
        words = sorted(option_table(default_target()))
    return [word for word in words if word.startswith(start)]
