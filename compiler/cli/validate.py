"""`sftc validate`."""

import sys
from pathlib import Path

import click

from ..compile import check_recipe
from ..summary import task_line
from .shared import ERRORS, RECIPE, failed, report, report_format, strict


@click.command()
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True, type=RECIPE)
@strict
@report_format
def validate(recipes: tuple[Path, ...], strict: bool, style: str) -> None:
    """Check recipes and report everything that is wrong with them. Writes nothing.

    \b
    Example:
      sftc validate recipes/quickstart/recipe.yaml
    """
    results = [check_recipe(path, click.format_filename(path)) for path in recipes]
    report(results, style, stream=sys.stdout)
    for path, result in zip(recipes, results, strict=True):
        if result.plan is not None:
            click.echo(f"{click.format_filename(path)}: {task_line(result)}", err=True)
    if any(failed(result, strict) for result in results):
        sys.exit(ERRORS)
