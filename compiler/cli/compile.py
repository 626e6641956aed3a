"""`sftc compile`."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from .. import builddir
from ..builddir import State
from ..compile import artifacts, check_recipe
from ..diagnostics import Diagnostic
from ..summary import layout_line, task_line
from .shared import ERRORS, RECIPE, REFUSED, build_dir, cannot, failed, problem, report, report_format, strict


@click.command("compile")
@click.argument("recipe", type=RECIPE)
@build_dir
@click.option("--force", is_flag=True, help="Overwrite artifacts that were edited. Foreign files are never touched.")
@strict
@report_format
def compile_command(recipe: Path, output: Path, force: bool, strict: bool, style: str) -> None:
    """Compile RECIPE into the build dir DIR.

    \b
    Example:
      sftc compile recipes/quickstart/recipe.yaml -o build/quickstart
      bash build/quickstart/launch.sh
    """
    result = check_recipe(recipe, click.format_filename(recipe))
    if result.plan is None or failed(result, strict):
        report([result], style, sys.stderr)
        sys.exit(ERRORS)
    files = artifacts(result)
    written: list[str] = []
    try:
        drift = builddir.scan(output, files)
        refused = [
            *_in_the_way(drift, output, force),
            *_own_input(result.plan["tokenizer.chat_template"], recipe, output),
        ]
        if not refused:
            written = builddir.apply(output, files, drift)
    except OSError as error:
        report([result], style, sys.stderr, [cannot(output, "written", error)])
        sys.exit(ERRORS)
    report([result], style, sys.stderr, refused)
    if refused:
        sys.exit(REFUSED)
    for path in drift.having(State.LEFTOVER):
        click.echo(f"  removed    {output / path}", err=True)
    for file in files:
        click.echo(f"  {'wrote    ' if file.path in written else 'unchanged'}  {output / file.path}", err=True)
    click.echo(f"{result.plan.name}: {layout_line(result.plan)}", err=True)
    starter = "sbatch" if result.plan["launch.launcher"] == "slurm" else "bash"
    script = "launch.sbatch" if starter == "sbatch" else "launch.sh"
    click.echo(f"start it with: {starter} {shlex.quote(str(output / script))}", err=True)
    click.echo(task_line(result), err=True)


def _in_the_way(drift: builddir.Drift, output: Path, force: bool) -> Iterator[Diagnostic]:
    """The files that are not ours to replace."""
    for path in drift.having(State.FOREIGN):
        help = "move it away, or compile into another directory"
        yield problem("SFTC601", f"{output / path} was not written by sftc", help)
    for path in [] if force else drift.having(State.EDITED):
        help = "put the change into the recipe; --force overwrites the edit"
        yield problem("SFTC602", f"{output / path} was edited", help)


def _own_input(template: str | None, recipe: Path, output: Path) -> Iterator[Diagnostic]:
    """An input that lies where its copy would go would count as the copy, and go when the recipe needs it no more."""
    target = output / "chat_template.jinja"
    if template is not None and target.exists() and target.samefile(recipe.parent / template):
        yield problem("SFTC601", f"{target} is the recipe's own chat template", "compile into another directory")
