"""`sftc compile`."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from .. import builddir
from ..builddir import State
from ..compile import Checked, artifacts, check_recipe
from ..diagnostics import Diagnostic
from ..plan import Plan
from ..render import LOCK, Artifact
from ..summary import layout_line, size_line, task_line
from .shared import (
    ERRORS,
    RECIPE,
    REFUSED,
    cannot,
    failed,
    not_empty,
    overrides,
    problem,
    report,
    report_format,
    source_of,
    strict,
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
    if result.plan is None or failed(result, strict):
        report([result], style, sys.stderr)
        sys.exit(ERRORS)
    files = artifacts(result)
    if output is None:
        report([result], style, sys.stderr, alone=False)
        _print(show, files)
    else:
        _write(result, result.plan, files, output, force, style)
        click.echo(task_line(result), err=True)


def _print(show: str | None, files: tuple[Artifact, ...]) -> None:
    found = next((file for file in files if file.path == show), None)
    if found is None:
        menu = ", ".join(file.path for file in files)
        raise click.UsageError(f"there is no artifact `{show}`; this recipe compiles to {menu}")
    click.echo(found.content, nl=False)


def _write(result: Checked, plan: Plan, files: tuple[Artifact, ...], output: Path, force: bool, style: str) -> None:
    """The build dir, and what was done, file by file."""
    written: list[str] = []
    try:
        drift = builddir.scan(output, files)
        refused = [*_in_the_way(drift, output, force), *_own_inputs(result, output)]
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
    click.echo(f"{plan.name}: {size_line(plan)}, {layout_line(plan)}", err=True)
    if LOCK in result.inputs:
        click.echo(f"locked: a launch verifies its inputs against {result.inputs[LOCK]}", err=True)
    starter = "sbatch" if plan["launch.launcher"] == "slurm" else "bash"
    script = "launch.sbatch" if starter == "sbatch" else "launch.sh"
    click.echo(f"start it with: {starter} {shlex.quote(str(output / script))}", err=True)


def _in_the_way(drift: builddir.Drift, output: Path, force: bool) -> Iterator[Diagnostic]:
    """The files that are not ours to replace."""
    for path in drift.having(State.FOREIGN):
        help = "move it away, or compile into another directory"
        yield problem("SFTC601", f"{output / path} was not written by sftc", help)
    for path in [] if force else drift.having(State.EDITED):
        help = "put the change into the recipe; --force overwrites the edit"
        yield problem("SFTC602", f"{output / path} was edited", help)


def _own_inputs(result: Checked, output: Path) -> Iterator[Diagnostic]:
    """An input that lies where its copy would go would count as the copy, and go when the recipe needs it no more."""
    for name, path in result.inputs.items():
        target = output / name
        if target.exists() and target.samefile(path):
            what = "lock" if name == LOCK else "chat template"
            yield problem("SFTC601", f"{target} is the recipe's own {what}", "compile into another directory")
