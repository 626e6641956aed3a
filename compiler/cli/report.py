"""`sftc report`: its options; what it shows is the runtime's and the build's."""

import sys
from pathlib import Path

import click

from .. import run_report
from ..data_commands import is_page
from ..reach import reach
from .shared import REFUSED, say, unusable

PAGE = "report.html"


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"What is written; {PAGE} in RUN.",
)
def report_command(run: Path, output: Path | None) -> None:
    """Write one HTML page about the run directory RUN, at any time of the run: plots of what was logged and of scores,
    answers beside their references, its starts, the plan with the origin of every value, the digests. The page needs
    nothing but itself.

    \b
    Examples:
      sftc report runs/quickstart
      sftc report runs/quickstart -o quickstart.html
    """
    commands = reach("runs")
    if not commands.is_run(run):
        raise click.UsageError(f"{run} is no run: it has no run.json; name the recipe's `logging.run_path`")
    target = run / PAGE if output is None else output
    facts = commands.read_run(run)
    try:
        if not is_page(target, run_report.GENERATOR):
            say("SFTC601", f"{target} was not written by sftc", "move it away, or name another file")
            sys.exit(REFUSED)
        run_report.write_report(target, commands.page(facts), run / commands.BUILD, facts.manifest)
    except OSError as error:
        unusable(target, "written", error)
    click.echo(f"wrote {target}", err=True)
