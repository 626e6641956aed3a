"""The option table of one Megatron version, and the check of one option's values against it.

The table is introspected from the wheel (`python -m sftc.runtime.options`); this module only reads it.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from .schemas import load_schema

FLAGS = frozenset({"store_true", "store_false", "store_const"})
NUMBERS = {"int": (int,), "float": (int, float)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of Megatron's parser. `nargs` is argparse's; `choices` is None where any value goes."""

    strings: tuple[str, ...]
    dest: str
    action: str
    type: str
    nargs: int | str | None
    choices: tuple[Any, ...] | None
    default: Any = None

    @property
    def is_flag(self) -> bool:
        """Takes no value."""
        return self.action in FLAGS or self.action == "boolean_optional"


@cache
def option_table(target: str) -> dict[str, Option]:
    """Every option string of Megatron `target` (such as `0.19`), with its option."""
    table = {}
    for row in load_schema(f"megatron/{target}.json")["options"]:
        option = Option(
            strings=tuple(row["strings"]),
            dest=row["dest"],
            action=row["action"],
            type=row.get("type", "str"),
            nargs=row.get("nargs"),
            choices=tuple(row["choices"]) if "choices" in row else None,
            default=row.get("default"),
        )
        table.update(dict.fromkeys(option.strings, option))
    return table


def option_of(target: str, name: str) -> str:
    """What `name`, as `megatron.args` spells it, sets in Megatron `target`; `name` itself if it is no option."""
    option = option_table(target).get("--" + name.replace("_", "-"))
    return option.dest if option else name


@cache
def option_defaults(target: str) -> dict[str, Any]:
    """What Megatron `target` takes where an option is not given, by its `dest`."""
    return {option.dest: option.default for option in reversed(option_table(target).values())}


@cache
def managed_options() -> dict[str, str]:
    """Options that would undo what a build dir promises, each with what to do instead; the same in every version."""
    table: dict[str, str] = load_schema("megatron/managed.json")
    return table


def problem(option: Option, name: str, values: tuple[Any, ...]) -> str | None:
    """Why `values` do not suit `option`, or None. Values are what YAML gave: numbers, strings."""
    if option.is_flag:
        return f"`{name}` is a flag and takes no value; write `true`" if values else None
    if not values:
        return f"`{name}` needs a value of type {option.type}, not `true`"
    wanted = _arity(option)
    if wanted is None and len(values) != 1:
        return f"`{name}` takes one value, found {len(values)}"
    if isinstance(option.nargs, int) and len(values) != option.nargs:
        return f"`{name}` takes {option.nargs} values, found {len(values)}"
    for value in values:
        # bool is a subclass of int: without the second test `[true]` would pass for a number.
        numeric = NUMBERS.get(option.type)
        if numeric and (not isinstance(value, numeric) or isinstance(value, bool)):
            return f"`{name}` takes {option.type} values, found `{value}`"
        if option.choices is not None and value not in option.choices:
            return f"`{name}` must be one of {', '.join(str(choice) for choice in option.choices)}, found `{value}`"
        if len(values) > 1 and str(value).startswith("-") and not isinstance(value, int | float):
            return f"`{name}` cannot hold `{value}`: among several values one that starts with `-` reads as an option"
    return None


def _arity(option: Option) -> int | str | None:
    return None if option.nargs in (None, "?") else option.nargs


def spell(value: Any) -> str:
    """A value as the command line says it; floats in Python's shortest form that reads back as the same number."""
    return repr(value) if isinstance(value, float) else str(value)
