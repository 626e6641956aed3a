"""`sftc compile`."""

import shlex
import sys
from pathlib import Path

import click

from .. import builddir
from ..builddir import State
from ..compile import artifacts, check_recipe
from ..summary import layout_line, size_line, task_line
from .shared import ERRORS, RECIPE, REFUSED, build_dir, failed, report, report_format, say, strict, unusable


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
    report([result], style, stream=sys.stderr)
    if result.plan is None or failed(result, strict):
        sys.exit(ERRORS)
    files = artifacts(result)
    try:
        drift = builddir.scan(output, files)
        _refuse(drift, output, force)
        _refuse_input(result.plan["tokenizer.chat_template"], recipe, output)
        written = builddir.apply(output, files, drift)
    except OSError as error:
        unusable(output, "written", error)
    for path in drift.having(State.LEFTOVER):
        click.echo(f"  removed    {output / path}", err=True)
    for file in files:
        click.echo(f"  {'wrote    ' if file.path in written else 'unchanged'}  {output / file.path}", err=True)
    click.echo(f"{result.plan.name}: {size_line(result.plan)}, {layout_line(result.plan)}", err=True)
    starter = "sbatch" if result.plan["launch.launcher"] == "slurm" else "bash"
    script = "launch.sbatch" if starter == "sbatch" else "launch.sh"
    click.echo(f"start it with: {starter} {shlex.quote(str(output / script))}", err=True)
    click.echo(task_line(result), err=True)


def _refuse(drift: builddir.Drift, output: Path, force: bool) -> None:
    """Ends the program when a file in the way is not ours to replace."""
    for path in drift.having(State.FOREIGN):
        say("SFTC601", f"{output / path} was not written by sftc", "move it away, or compile into another directory")
    edited = [] if force else drift.having(State.EDITED)
    for path in edited:
        say("SFTC602", f"{output / path} was edited", "put the change into the recipe; --force overwrites the edit")
    if edited or drift.having(State.FOREIGN):
        sys.exit(REFUSED)


def _refuse_input(template: str | None, recipe: Path, output: Path) -> None:
    """An input that lies where its copy would go would count as the copy, and go when the recipe needs it no more."""
    target = output / "chat_template.jinja"
    if template is not None and target.exists() and target.samefile(recipe.parent / template):
        say("SFTC601", f"{target} is the recipe's own chat template", "compile into another directory")
        sys.exit(REFUSED)
