"""The options that the installed Megatron understands, as a JSON table for `schema/megatron/<version>.json`.

    python -m sftc.runtime.options > schema/megatron/0.19.json

`make option-tables` does so for every target. The table is read off the parser that Megatron itself builds, never off
its sources or documentation, so that it cannot disagree with what the launched job will accept. It states facts only:
no help sentences, no judgement on which options are wise. It can not know what Megatron's validator rejects later, nor
options that a user's own code adds.

Nothing here needs a GPU: building the parser imports Megatron's modules and touches no device.
"""

import argparse
import contextlib
import enum
import json
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

LAUNCHER_VARIABLES = ("LOCAL_RANK", "RANK", "WORLD_SIZE")

# Classes of argparse, which keeps most of them private; their names have been stable since Python 3.9.
ACTION_KINDS = {
    "_AppendAction": "append",
    "_AppendConstAction": "append_const",
    "_CountAction": "count",
    "_ExtendAction": "extend",
    "_StoreAction": "store",
    "_StoreConstAction": "store_const",
    "_StoreFalseAction": "store_false",
    "_StoreTrueAction": "store_true",
    "BooleanOptionalAction": "boolean_optional",
}
ACTIONS_WITH_VALUES = frozenset({"append", "extend", "store"})


@contextlib.contextmanager
def quiet_single_process() -> Iterator[None]:
    """Hides what would make the table differ from shell to shell, or mix with it on stdout.

    A few defaults of Megatron are the launcher's environment variables, read while the parser is built, and its
    modules warn on import about every library that is missing.
    """
    saved = {name: os.environ.pop(name) for name in LAUNCHER_VARIABLES if name in os.environ}
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.update(saved)


def installed_version() -> str:
    """The release of the Megatron that is importable, such as `0.19.2`; raises ImportError when there is none.

    Taken from the release tuple, because `megatron.core.__version__` ends with the git hash of whatever repository the
    environment happens to lie in.
    """
    from megatron.core import package_info

    major, minor, patch, pre_release = package_info.VERSION
    return f"{major}.{minor}.{patch}{pre_release}"


def megatron_parser() -> argparse.ArgumentParser:
    """Megatron's own parser, complete; raises ImportError when `megatron.training` is not installed."""
    from megatron.training.arguments import add_megatron_arguments

    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    add_megatron_arguments(parser)
    return parser


def plain(value: object) -> object:
    """`value` as JSON can say it; an enum member by its name, which is how it is spelled on the command line."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"no JSON spelling for {value!r} of type `{type(value).__name__}`")


def type_name(action: argparse.Action) -> str:
    """What a value is converted to: `int`, `float`, `str`, `bool`, the name of an enum, or of Megatron's converter."""
    choices = list(action.choices) if action.choices is not None else []
    if choices and isinstance(choices[0], enum.Enum):
        return type(choices[0]).__name__
    if action.type is None:
        return "str"
    return getattr(action.type, "__name__", str(action.type))


def describe(action: argparse.Action) -> dict[str, Any]:
    """One row of the table. `nargs` and `choices` are absent where argparse has none, `required` where it is false."""
    kind = ACTION_KINDS[type(action).__name__]
    row: dict[str, Any] = {"strings": list(action.option_strings), "dest": action.dest, "action": kind}
    if kind in ACTIONS_WITH_VALUES:
        row["type"] = type_name(action)
        if action.nargs is not None:
            row["nargs"] = action.nargs
        if action.choices is not None:
            row["choices"] = plain(list(action.choices))
    if action.const is not None and kind.endswith("const"):
        row["const"] = plain(action.const)
    row["default"] = plain(action.default)
    if action.required:
        row["required"] = True
    return row


def option_rows(parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    """Every option of `parser`, sorted by its first option string; positional arguments have none and are left out."""
    rows = [describe(action) for action in parser._actions if action.option_strings]
    return sorted(rows, key=lambda row: row["strings"][0])


def option_table() -> str:
    """The whole table as JSON text, one option per line; raises ImportError when Megatron is not installed."""
    with quiet_single_process():
        version = installed_version()
        rows = option_rows(megatron_parser())
    strings = sum(len(row["strings"]) for row in rows)
    lines = ",\n".join("    " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return (
        f'{{\n  "megatron_core": "{version}",\n  "options_count": {len(rows)},\n  "strings_count": {strings},\n'
        f'  "options": [\n{lines}\n  ]\n}}\n'
    )


def main() -> int:
    """Writes the table to stdout."""
    try:
        table = option_table()
    except ImportError as error:
        sys.stderr.write(f"error: the table is read off an installed Megatron, and importing it failed: {error}\n")
        sys.stderr.write('help: pip install "megatron-core[training]"\n')
        return 1
    sys.stdout.write(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
