"""`sftc explain`."""

import re
import sys
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from ..built import Built, NotBuilt, built_of, read_built
from ..compile import artifacts, check_recipe
from ..explain import (
    Unknown,
    completions,
    default_target,
    explain_code,
    explain_key,
    explain_option,
    find_key,
)
from ..trace import trace_line
from .shared import ERRORS, RECIPE, report


class _Explain(click.Command):
    """Megatron's options complete as its own do."""

    def shell_complete(self, context: click.Context, start: str) -> list[CompletionItem]:
        options = completions(start) if start.startswith("-") else []
        return [*super().shell_complete(context, start), *map(CompletionItem, options)]


def _complete(_context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in completions(start)] or [CompletionItem(start, type="file")]


# Without the setting `--lr` would be an option that explain does not have.
@click.command(cls=_Explain, context_settings={"ignore_unknown_options": True})
@click.argument("subject", metavar="CODE|KEY|--OPTION|FILE:LINE", shell_complete=_complete)
@click.option("--recipe", type=RECIPE, help="Also say the value that a key or an option has in this recipe, and why.")
def explain(subject: str, recipe: Path | None) -> None:
    """Say what a diagnostic code, a recipe key or an option of Megatron is, or where a line of a build dir comes from.

    FILE is a file of a build dir, or a recipe.

    \b
    Examples:
      sftc explain SFTC201
      sftc explain train.lr --recipe recipes/quickstart/recipe.yaml
      sftc explain --lr-warmup-iters
      sftc explain build/quickstart/megatron.args:12
    """
    try:
        click.echo(_answer(subject, recipe), nl=False)
    except (Unknown, NotBuilt) as error:
        raise click.UsageError(str(error)) from None


def _answer(subject: str, recipe: Path | None) -> str:
    if re.fullmatch(r"(?i)sftc-?\d+", subject):
        return explain_code(subject.upper().replace("-", ""))
    place = re.fullmatch(r"(?P<file>.+?):(?P<line>\d+)(:\d+)?", subject)
    if place:
        return _line(Path(place["file"]), int(place["line"]))
    built = _compiled(recipe) if recipe else None
    if subject.startswith("--"):
        target = built.plan["target"]["megatron"] if built else default_target()
        return explain_option(subject.partition("=")[0].replace("_", "-"), target, built)
    return explain_key(find_key(subject), built)


def _line(file: Path, number: int) -> str:
    if not file.is_file():
        raise Unknown(f"there is no file `{file}`")
    if file.suffix in (".yaml", ".yml"):
        return _recipe_line(file, number)
    built = read_built(file.parent, str(file.parent))
    if file.name not in built.texts:
        raise Unknown(f"`{file}` is no artifact of its build dir; they are {', '.join(built.texts)}")
    try:
        step = trace_line(built, file.name, number)
    except IndexError:
        count = len(built.texts[file.name].splitlines())
        raise Unknown(f"`{file}` has no line {number}; it has {count}") from None
    if built.is_edited(file.name):
        click.echo(f"{file} was edited: it is not what was compiled", err=True)
    return "\n".join(step.lines()) + "\n"


def _recipe_line(file: Path, number: int) -> str:
    """The key that starts on a line of a recipe, or the one whose value the line is in."""
    built = _compiled(file)
    places = {key: built.places[key].rsplit(":", 2) for key in built.values if key in built.places}
    starts = {key: int(line) for key, (name, line, _) in places.items() if name == file.name}
    above = [key for key, line in starts.items() if line <= number]
    key = max(above, key=lambda key: starts[key], default=None)
    if key is None:
        raise Unknown(f"no key stands on line {number} of `{file}`")
    return explain_key(key, built)


def _compiled(recipe: Path) -> Built:
    result = check_recipe(recipe, click.format_filename(recipe))
    if result.plan is None:
        report([result], "text", sys.stderr)
        sys.exit(ERRORS)
    return built_of(artifacts(result), click.format_filename(recipe))
