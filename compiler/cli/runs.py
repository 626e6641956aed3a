"""`sftc runs`: its options; what it reads is the runtime's."""

import json
from pathlib import Path

import click

from ..reach import reach

RUNS = Path("runs")


@click.command()
@click.argument("directories", metavar="[DIR]...", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", help="What is printed.")
def runs(directories: tuple[Path, ...], style: str) -> None:
    """List the runs in each DIR, which is a run directory or holds some; in runs/ without one.

    \b
    A run is complete, running, stopped (by a signal), failed, or lost: it never said how it
    ended, and it lives no more. It is unknown where neither can be seen from here. Before any
    rank has started it is prepared.

    \b
    Examples:
      sftc runs
      sftc runs runs/llama-3.1-8b --format json
    """
    commands = reach("runs")
    found = []
    for directory in directories or ([RUNS] if RUNS.is_dir() else []):
        try:
            paths = commands.find_runs(directory)
        except OSError as error:
            raise click.UsageError(f"{directory} cannot be read: {error.strerror or error}") from None
        if not paths and directories:
            click.echo(f"{directory} holds no run", err=True)
        found += [commands.read_run(path) for path in paths]
    if style == "json":
        click.echo(json.dumps(commands.documents(found), indent=2, ensure_ascii=False))
        return
    if found:
        click.echo(commands.table(found), nl=False)
    elif not directories:
        click.echo(f"there is no run in {RUNS}/", err=True)
    for run in found:
        for problem in run.problems:
            click.echo(f"warning: {problem}", err=True)
