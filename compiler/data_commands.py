"""`sftc data ...`: the runtime's data half, loaded by name when one of its commands is asked for, and its page.

The one place in which the compiler reaches the runtime; compiling never comes here. Neither prints nor exits.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from . import builddir
from .plan import Plan
from .render import render_page

RUNTIME = "sftc.runtime.data.commands"
GENERATOR = '<meta name="generator" content="sftc data preview">'


class MissingExtra(Exception):
    """The message names the library that is not installed and the remedy."""


def runtime() -> Any:
    """The module of the data commands. MissingExtra if a library that it needs is not installed."""
    try:
        return import_module(RUNTIME)
    except ModuleNotFoundError as error:
        library = (error.name or "sftc").partition(".")[0]
        if library == "sftc":
            raise
        raise MissingExtra(
            f"`sftc data` needs the extra `data`, and `{library}` is not installed: pip install 'sftc[data]'"
        ) from None


def recipe_of(commands: Any, plan: Plan) -> Any:
    """What the runtime needs of a plan."""
    return commands.Recipe(name=plan.name, value=plan.__getitem__, chat_template=plan.chat_template)


def is_page(path: Path) -> bool:
    """Whether `path` may be replaced: it is free, or an older page. OSError if it cannot be read."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(512)


def write_page(path: Path, facts: dict[str, Any], plan: Plan) -> None:
    """The page of a preview, replaced at once. OSError if it cannot be written."""
    task = {"kind": plan.task.kind, "reason": plan.task.reason.replace("`", ""), "description": plan.description or ""}
    builddir.write_file(path, render_page("preview.html", {**facts, "task": task}))
