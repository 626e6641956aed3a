"""`sftc compile`."""

import shlex
import sys
from pathlib import Path

import click

from .. import builddir
from ..builddir import State
from ..compile import Checked, artifacts, check_recipe
from ..plan import Plan
from ..render import LOCK, Artifact
from ..summary import layout_line, size_line, task_line
from .shared import (
    ERRORS,
    RECIPE,
    REFUSED,
    failed,
    not_empty,
    overrides,
    report,
    report_format,
    say,
    source_of,
    strict,
    unusable,
)


@click.command("compile")
@click.argument("recipe", type=RECIPE)
@click.option("-o", "--output", type=click.Path(), callback=not_empty, metavar="DIR", help="The build dir.")
@click.option("--show", metavar="ARTIFACT", help="Print this file of the build dir and write nothing.")
@click.option("--plan", "show", flag_value="plan.json", help="The same as --show plan.json.")
@overrides
@click.option("--force", is_flag=True, help="Overwrite artifacts that were edited. Foreign files are never touched.")
@strict
@report_format
def compile_command(
    recipe: Path,
    output: Path | None,
    show: str | None,
    overrides: tuple[str, ...],
    force: bool,
    strict: bool,
    style: str,
) -> None:
    """Compile RECIPE (`-`: standard input) into the build dir DIR.

    \b
    Examples:
      sftc compile recipes/quickstart/recipe.yaml -o build/quickstart
      bash build/quickstart/launch.sh
      sftc compile recipes/quickstart/recipe.yaml --show megatron.args
    """
    if (output is None) == (show is None):
        raise click.UsageError("say where to with -o DIR, or what to print with --show ARTIFACT or --plan: one of them")
    result = check_recipe(*source_of(recipe), overrides)
    report([result], style, stream=sys.stderr)
    if result.plan is None or failed(result, strict):
        sys.exit(ERRORS)
    files = artifacts(result)
    if output is None:
        _print(show, files)
    else:
        _write(result, result.plan, files, output, force)
        click.echo(task_line(result), err=True)


def _print(show: str | None, files: tuple[Artifact, ...]) -> None:
    found = next((file for file in files if file.path == show), None)
    if found is None:
        menu = ", ".join(file.path for file in files)
        raise click.UsageError(f"there is no artifact `{show}`; this recipe compiles to {menu}")
    click.echo(found.content, nl=False)


def _write(result: Checked, plan: Plan, files: tuple[Artifact, ...], output: Path, force: bool) -> None:
    """The build dir, and what was done, file by file."""
    try:
        drift = builddir.scan(output, files)
        _refuse(drift, output, force)
        _refuse_inputs(result, output)
        written = builddir.apply(output, files, drift)
    except OSError as error:
        unusable(output, "written", error)
    for path in drift.having(State.LEFTOVER):
        click.echo(f"  removed    {output / path}", err=True)
    for file in files:
        click.echo(f"  {'wrote    ' if file.path in written else 'unchanged'}  {output / file.path}", err=True)
    click.echo(f"{plan.name}: {size_line(plan)}, {layout_line(plan)}", err=True)
    if LOCK in result.inputs:
        click.echo(f"locked: a launch verifies its inputs against {result.inputs[LOCK]}", err=True)
    starter = "sbatch" if plan["launch.launcher"] == "slurm" else "bash"
    script = "launch.sbatch" if starter == "sbatch" else "launch.sh"
    click.echo(f"start it with: {starter} {shlex.quote(str(output / script))}", err=True)


def _refuse(drift: builddir.Drift, output: Path, force: bool) -> None:
    """Ends the program when a file in the way is not ours to replace."""
    for path in drift.having(State.FOREIGN):
        say("SFTC601", f"{output / path} was not written by sftc", "move it away, or compile into another directory")
    edited = [] if force else drift.having(State.EDITED)
    for path in edited:
        say("SFTC602", f"{output / path} was edited", "put the change into the recipe; --force overwrites the edit")
    if edited or drift.having(State.FOREIGN):
        sys.exit(REFUSED)


def _refuse_inputs(result: Checked, output: Path) -> None:
    """An input that lies where its copy would go would count as the copy, and go when the recipe needs it no more."""
    for name, path in result.inputs.items():
        target = output / name
        if target.exists() and target.samefile(path):
            what = "lock" if name == LOCK else "chat template"
            say("SFTC601", f"{target} is the recipe's own {what}", "compile into another directory")
            sys.exit(REFUSED)
