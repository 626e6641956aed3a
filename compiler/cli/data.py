"""`sftc data`: its options; what it does is the runtime's."""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .. import data_commands
from ..compile import check_recipe
from ..plan import Plan
from ..reach import MissingExtra, reach
from .shared import ERRORS, RECIPE, REFUSED, answer, at_root, colour, overrides, report, say, source_of, unusable


@click.group()
def data() -> None:
    """Prepare the data of a recipe and look at it. Needs the extra `data`: pip install 'sftc[data]'."""


@data.command("prepare")
@click.argument("recipe", type=RECIPE)
@overrides
def data_prepare(recipe: Path, overrides: tuple[str, ...]) -> None:
    """Turn the rows of RECIPE into tokens and masks, as launch.sh does it, and print where they are.

    \b
    Example:
      sftc data prepare recipes/quickstart/recipe.yaml
    """
    with _data_of(recipe, overrides) as (commands, about, _):
        click.echo(answer(commands.prepare_recipe(about)), nl=False)


@data.command("stats")
@click.argument("recipe", type=RECIPE)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", help="What is printed.")
@overrides
def data_stats(recipe: Path, style: str, overrides: tuple[str, ...]) -> None:
    """Print what the prepared data of RECIPE holds: counts, lengths, what is trained on, what was left out and why.

    \b
    Example:
      sftc data stats recipes/quickstart/recipe.yaml
    """
    with _data_of(recipe, overrides) as (commands, about, _):
        found = answer(commands.statistics(about))
        text = json.dumps(found, indent=2, ensure_ascii=False) + "\n" if style == "json" else commands.table(found)
        click.echo(text, nl=False)


@data.command("preview")
@click.argument("recipe", type=RECIPE)
@click.option("-n", "count", type=click.IntRange(min=1), help="How many samples; 5, or 1 with --row.")
@click.option("--split", type=click.Choice(["train", "valid"]), help="Of which data; train, or both with --html.")
@click.option("--row", type=click.IntRange(min=1), help="The first sample to show, counted from 1.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page for the review.")
@overrides
def data_preview(
    recipe: Path, count: int | None, split: str | None, row: int | None, page: Path | None, overrides: tuple[str, ...]
) -> None:
    """Show samples of RECIPE token by token, those that are trained on in colour.

    \b
    Examples:
      sftc data preview recipes/quickstart/recipe.yaml -n 3
      sftc data preview recipes/quickstart/recipe.yaml --html preview.html
    """
    target = None if page is None else Path.cwd() / page
    with _data_of(recipe, overrides) as (commands, about, plan):
        splits = (split,) if split else commands.splits(about) if page else ("train",)
        choice = commands.Choice(splits=splits, first=row or 1, count=count or (1 if row else 5))
        if page is None or target is None:
            coloured = colour(sys.stdout)
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
            click.echo(answer(commands.preview(about, choice, coloured, columns)), nl=False, color=coloured)
            return
        try:
            if not data_commands.is_page(target):
                say("SFTC601", f"{page} was not written by sftc", "move it away, or name another file")
                sys.exit(REFUSED)
            data_commands.write_page(target, answer(commands.page(about, choice)), plan)
        except OSError as error:
            unusable(page, "written", error)
    click.echo(f"wrote {page}", err=True)


@contextlib.contextmanager
def _data_of(recipe: Path, overrides: tuple[str, ...]) -> Iterator[tuple[Any, Any, Plan]]:
    """The runtime's data commands, the recipe as they take it, and its plan; where launch.sh would look for paths."""
    result = check_recipe(*source_of(recipe), overrides, locked=False)
    report([result], "text", stream=sys.stderr)
    if result.plan is None:
        sys.exit(ERRORS)
    try:
        commands = reach("data")
    except MissingExtra as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(ERRORS)
    if not result.plan.has_rows:
        click.echo("error: the recipe names no rows; its samples are those of `hooks.datasets_provider`", err=True)
        sys.exit(ERRORS)
    with at_root():
        yield commands, data_commands.recipe_of(commands, result.plan), result.plan
