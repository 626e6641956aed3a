"""`sftc estimate`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from ..compile import check_recipe
from ..estimate import estimate
from ..estimate.advice import advise
from ..estimate.data import to_json
from ..estimate.text import render
from ..hardware import hardware_table
from .shared import ERRORS, RECIPE, colour, overrides, report, source_of

GIB = 1 << 30


@click.command("estimate")
@click.argument("recipe", type=RECIPE)
@click.option(
    "--hardware",
    type=click.Choice(list(hardware_table())),
    help="The device of each rank, in the place of `launch.hardware`.",
)
@click.option(
    "--memory", type=click.FloatRange(min=0, min_open=True), metavar="GIB", help="Memory of a device, in GiB."
)
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", help="How the figures are told."
)
@click.option("--fail-over", is_flag=True, help="Exit 1 when the run does not fit.")
@overrides
def estimate_command(
    recipe: Path,
    hardware: str | None,
    memory: float | None,
    style: str,
    fail_over: bool,
    overrides: tuple[str, ...],
) -> None:
    """Say what RECIPE (`-`: standard input) needs before it runs: memory of each rank, FLOPs, time, disk.

    \b
    Examples:
      sftc estimate recipes/quickstart/recipe.yaml --hardware H100
      sftc estimate recipes/llama-3.1-8b.yaml --set parallel.tensor_model_parallel_size=4
    """
    result = check_recipe(*source_of(recipe), overrides)
    # That it does not fit is what the report is about, and the device may be another one here.
    others = [found for found in result.diagnostics if found.code != "SFTC481"]
    report([replace(result, diagnostics=others)], "text", stream=sys.stderr)
    if result.plan is None:
        sys.exit(ERRORS)
    assert result.document is not None
    device = hardware_table()[hardware] if hardware else None
    found = estimate(result.plan, hardware=device, limit=round(memory * GIB) if memory else None)
    if fail_over and found.limit is None:
        raise click.UsageError("--fail-over needs to know the device: --hardware, --memory or `launch.hardware`")
    advice = advise(found, result.document)
    if style == "json":
        click.echo(json.dumps(to_json(found, advice), indent=2))
    else:
        click.echo(render(found, advice, colour(sys.stdout)), nl=False)
    if fail_over and not found.fits:
        sys.exit(ERRORS)
