"""`sftc check`."""

import contextlib
import shlex
import sys
from pathlib import Path

import click

from .. import builddir
from ..compile import artifacts, check_recipe
from ..manifest import MANIFEST, overrides_in
from ..render import Artifact
from ..reporters import DOCUMENTS
from .shared import DRIFT, ERRORS, RECIPE, build_dir, cannot, overrides, report, report_format, source_of


@click.command()
@click.argument("recipe", type=RECIPE)
@build_dir
@overrides
@report_format
def check(recipe: Path, output: Path, overrides: tuple[str, ...], style: str) -> None:
    """Say whether the build dir DIR is what RECIPE compiles to now; exit 3 if it is not. Writes nothing.

    A build dir that was compiled with --set is compared with the same --set.

    \b
    Example:
      sftc check recipes/quickstart/recipe.yaml -o build/quickstart
    """
    result = check_recipe(*source_of(recipe), overrides)
    if result.plan is None:
        report([result], style, sys.stderr)
        sys.exit(ERRORS)
    try:
        files = artifacts(result)
        drift = builddir.scan(output, files)
    except OSError as error:
        report([result], style, sys.stderr, [cannot(output, "read", error)])
        sys.exit(ERRORS)
    report([result], style, sys.stderr)
    for path, state in drift.states.items():
        click.echo(f"{state:<8}  {output / path}", err=style in DOCUMENTS)
    if not drift.clean:
        _tell_overrides(output, files)
        sys.exit(DRIFT)


def _tell_overrides(output: Path, files: tuple[Artifact, ...]) -> None:
    """Where a forgotten --set is all that differs, nothing else would say so."""
    then: list[str] = []
    with contextlib.suppress(OSError):
        then = overrides_in((output / MANIFEST).read_bytes())
    now = overrides_in(next(file.content for file in files if file.path == MANIFEST))
    if then != now:
        said = " ".join(f"--set {shlex.quote(one)}" for one in then) or "no --set"
        click.echo(f"{output} was compiled with {said}", err=True)
