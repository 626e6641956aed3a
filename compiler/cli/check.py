"""`sftc check`."""

import sys
from pathlib import Path

import click

from .. import builddir
from ..compile import artifacts, check_recipe
from .shared import DRIFT, ERRORS, RECIPE, build_dir, report, report_format, unusable


@click.command()
@click.argument("recipe", type=RECIPE)
@build_dir
@report_format
def check(recipe: Path, output: Path, style: str) -> None:
    """Say whether the build dir DIR is what RECIPE compiles to now; exit 3 if it is not. Writes nothing.

    \b
    Example:
      sftc check recipes/quickstart/recipe.yaml -o build/quickstart
    """
    result = check_recipe(recipe, click.format_filename(recipe))
    report([result], style, stream=sys.stderr)
    if result.plan is None:
        sys.exit(ERRORS)
    try:
        drift = builddir.scan(output, artifacts(result))
    except OSError as error:
        unusable(output, "read", error)
    for path, state in drift.states.items():
        click.echo(f"{state:<8}  {output / path}")
    if not drift.clean:
        sys.exit(DRIFT)
