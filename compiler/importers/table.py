"""Megatron's names to recipe keys: the recipe schema's `x-megatron`, read the other way round."""

from functools import cache
from typing import Any

from ..options import Option, managed_options, option_table
from ..schemas import leaves, load_schema, recipe_schema


@cache
def target() -> str:
    """The Megatron version of a recipe that names none."""
    default: str = recipe_schema()["properties"]["megatron"]["properties"]["target"]["default"]
    return default


@cache
def keys_by_dest() -> dict[str, str]:
    """`lr` → `train.lr`: the recipe key that holds the value of Megatron's `dest`."""
    table = option_table(target())
    found = {}
    for key, schema in leaves():
        option = schema.get("x-megatron") or schema.get("x-megatron-false")
        if option:
            found[table[option].dest] = key
    return found


@cache
def options_by_dest() -> dict[str, tuple[Option, ...]]:
    found: dict[str, list[Option]] = {}
    for option in {id(option): option for option in option_table(target()).values()}.values():
        found.setdefault(option.dest, []).append(option)
    return {dest: tuple(options) for dest, options in found.items()}


@cache
def dest_of(name: str) -> str:
    """Megatron's `dest` for the name of an option that takes a value: `norm_epsilon` is kept as `layernorm_epsilon`."""
    if name in options_by_dest():
        return name
    option = option_table(target()).get("--" + name.replace("_", "-"))
    return option.dest if option and not option.is_flag else name


@cache
def defaults() -> dict[str, Any]:
    """What Megatron takes where nothing is said; the first option of a `dest` decides, as in argparse."""
    found: dict[str, Any] = {}
    for row in load_schema(f"megatron/{target()}.json")["options"]:
        found.setdefault(row["dest"], row["default"])
    return found


@cache
def remedies() -> dict[str, str]:
    """What to do instead of each option that sftc answers for, by `dest`."""
    table = option_table(target())
    return {table[name].dest: remedy for name, remedy in managed_options().items() if name in table}


def versions_with(option: str) -> list[str]:
    """The other targets whose Megatron has `option`."""
    targets = recipe_schema()["properties"]["megatron"]["properties"]["target"]["enum"]
    return [version for version in targets if version != target() and option in option_table(version)]
