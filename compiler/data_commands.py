"""`sftc data ...`: what the runtime is told of a plan, and the page of a preview. Neither prints nor exits."""

from pathlib import Path
from typing import Any

from . import builddir
from .plan import Plan
from .render import render_page

GENERATOR = '<meta name="generator" content="sftc data preview">'
START = 512  # bytes in which a page says what wrote it


def recipe_of(commands: Any, plan: Plan) -> Any:
    """What the runtime needs of a plan."""
    return commands.Recipe(name=plan.name, value=plan.__getitem__, chat_template=plan.chat_template)


def is_page(path: Path, generator: str = GENERATOR) -> bool:
    """Whether `path` may be replaced: it is free, or an older page. OSError if it cannot be read."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        return generator.encode() in file.read(START)


def write_page(path: Path, facts: dict[str, Any], plan: Plan) -> None:
    """The page of a preview, replaced at once. OSError if it cannot be written."""
    task = {"kind": plan.task.kind, "reason": plan.task.reason.replace("`", ""), "description": plan.description or ""}
    builddir.write_file(path, render_page("preview.html", {**facts, "task": task}))
