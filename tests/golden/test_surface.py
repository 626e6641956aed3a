"""What users and their scripts may rely on, in one text: a change of it is a decision, never an accident."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from sftc.compiler.cli import cli, exits
from sftc.compiler.codes import CODES
from sftc.compiler.compile import artifacts, check_recipe
from sftc.compiler.hooks import PREFIX
from sftc.compiler.reporters import REPORTERS
from sftc.compiler.schemas import leaves

HERE = Path(__file__).parent
SURFACE = HERE / "surface.txt"


def test_the_surface_is_the_frozen_one(request: pytest.FixtureRequest) -> None:
    text = "\n".join(surface()) + "\n"
    if request.config.getoption("--update-golden"):
        SURFACE.write_text(text, encoding="utf-8")
    assert text == SURFACE.read_text(encoding="utf-8")


def surface() -> Iterator[str]:
    yield "# commands and options"
    yield from commands(cli, click.Context(cli, info_name="sftc"))
    yield "\n# exit codes"
    yield from (
        f"{name.lower()} {getattr(exits, name)}" for name in ("ERRORS", "DRIFT", "REFUSED", "BUG", "INTERRUPTED")
    )
    yield "\n# report formats"
    yield from REPORTERS
    yield "\n# diagnostic codes"
    yield from CODES
    yield "\n# artifacts, with the keys of JSON ones"
    yield from files()
    yield "\n# recipe keys"
    yield from (key for key, _ in leaves())


def commands(command: click.Command, context: click.Context) -> Iterator[str]:
    words = [parameter_words(parameter) for parameter in command.params]
    yield " ".join([context.command_path, *words])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, click.Context(child, context, info_name=name))


def parameter_words(parameter: click.Parameter) -> str:
    names = "/".join(parameter.opts) if isinstance(parameter, click.Option) else str(parameter.name)
    choices = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
    return f"{names}={','.join(map(str, choices))}" if choices else names


def files() -> Iterator[str]:
    """Of recipes that reach every artifact together; a hook's file has the name that its author gave it."""
    found: dict[str, set[str]] = {}
    cases = (HERE / f"cases/{name}.yaml" for name in ("slurm-3d", "derived"))
    shipped = (HERE.parents[1] / f"recipes/{name}/recipe.yaml" for name in ("quickstart", "hooks"))
    for recipe in (*cases, *shipped):
        checked = check_recipe(recipe, recipe.name)
        for artifact in artifacts(checked):
            keys = found.setdefault("hook_*.py" if artifact.path.startswith(PREFIX) else artifact.path, set())
            if artifact.path.endswith(".json"):
                keys.update(json_keys(json.loads(artifact.content)))
    for path in sorted(found):
        yield path
        yield from (f"  {key}" for key in sorted(found[path]))


def json_keys(node: Any, prefix: str = "", depth: int = 4) -> Iterator[str]:
    """Paths of keys, `[]` for the items of a list; the keys of the values themselves are the recipe's."""
    if isinstance(node, dict) and depth and prefix not in ("values.", "keys.", "lines."):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from json_keys(child, f"{prefix}{name}.", depth - 1)
    elif isinstance(node, list):
        for child in node:
            yield from json_keys(child, f"{prefix.removesuffix('.')}[].", depth - 1)
