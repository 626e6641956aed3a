"""`sftc validate`."""

import sys
from pathlib import Path

import click

from ..compile import check_recipe
from ..summary import task_line
from .shared import ERRORS, RECIPE, failed, overrides, report, report_format, source_of, strict


@click.command()
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True, type=RECIPE)
@overrides
@strict
@report_format
def validate(recipes: tuple[Path, ...], overrides: tuple[str, ...], strict: bool, style: str) -> None:
    """Check recipes (`-`: standard input) and report everything that is wrong with them. Writes nothing.

    \b
    Examples:
      sftc validate recipes/quickstart/recipe.yaml
      sftc validate recipes/quickstart/recipe.yaml --set train.lr=1e-3
    """
    results = [check_recipe(*source_of(path), overrides) for path in recipes]
    report(results, style, stream=sys.stdout)
    for path, result in zip(recipes, results, strict=True):
        if result.plan is not None:
            click.echo(f"{source_of(path)[1]}: {task_line(result)}", err=True)
    if any(failed(result, strict) for result in results):
        sys.exit(ERRORS)
