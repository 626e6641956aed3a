"""`sftc diff`."""

import sys
from pathlib import Path

import click

from ..built import Built, NotBuilt, built_of, read_built
from ..compile import artifacts, check_recipe
from ..diff import compare
from ..diff_text import FORMATS
from .shared import DRIFT, ERRORS, RECIPE, colour, report


@click.command()
@click.argument("old", metavar="A", type=RECIPE)
@click.argument("new", metavar="B", type=RECIPE)
@click.option("--plan", "plan_only", is_flag=True, help="Compare the values alone, not the texts.")
@click.option("--exit-code", is_flag=True, help="Exit 3 if they differ.")
@click.option("--format", "style", type=click.Choice(list(FORMATS)), default="text", help="What is printed.")
def diff(old: Path, new: Path, plan_only: bool, exit_code: bool, style: str) -> None:
    """Say what changes from A to B, each a recipe or a build dir: values with their reasons first, then the files.

    \b
    Examples:
      sftc diff build/quickstart recipes/quickstart/recipe.yaml
      sftc diff before.yaml after.yaml --format markdown
    """
    try:
        found = compare(_side(old), _side(new), plan_only=plan_only)
    except NotBuilt as error:
        raise click.UsageError(str(error)) from None
    coloured = colour(sys.stdout)
    click.echo(FORMATS[style](found, coloured), nl=False, color=coloured)
    if found and exit_code:
        sys.exit(DRIFT)


def _side(path: Path) -> Built:
    name = click.format_filename(path)
    if path.is_dir():
        return read_built(path, name)
    result = check_recipe(path, name)
    if result.plan is None:
        report([result], "text", sys.stderr)
        sys.exit(ERRORS)
    return built_of(artifacts(result), name)
