"""`sftc check`."""

import sys
from pathlib import Path

import click

from .. import builddir
from ..compile import artifacts, check_recipe
from ..reporters import DOCUMENTS
from .shared import DRIFT, ERRORS, RECIPE, build_dir, cannot, report, report_format


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
    if result.plan is None:
        report([result], style, sys.stderr)
        sys.exit(ERRORS)
    try:
        drift = builddir.scan(output, artifacts(result))
    except OSError as error:
        report([result], style, sys.stderr, [cannot(output, "read", error)])
        sys.exit(ERRORS)
    report([result], style, sys.stderr)
    for path, state in drift.states.items():
        click.echo(f"{state:<8}  {output / path}", err=style in DOCUMENTS)
    if not drift.clean:
        sys.exit(DRIFT)
