"""`sftc export`: its options; what it does is the runtime's."""

import re
import sys
from pathlib import Path

import click

from ..reach import MissingExtra, reach
from .shared import ERRORS, RECIPE, REFUSED, answer, not_empty, say, unusable

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def _bytes_of(size: str) -> int | None:
    """`5GB` as a number of bytes, in powers of ten; None if it is no size."""
    match = re.fullmatch(r"([1-9]\d*) ?([KMG]B)?", size.strip().upper())
    return int(match[1]) * UNITS[match[2] or ""] if match else None


def _size(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    size = _bytes_of(text)
    if size is None:
        raise click.BadParameter("write it as in 5GB or 500MB")
    return size


@click.command()
@click.argument("run", type=RECIPE)
@click.option(
    "-o", "--output", required=True, type=click.Path(), callback=not_empty, metavar="DIR", help="What is written."
)
@click.option("--iteration", type=click.IntRange(min=1), help="Of which checkpoint; the newest.")
@click.option("--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), help="Of the weights; that of the training.")
@click.option("--max-shard-size", "shard", default="5GB", callback=_size, show_default=True, help="Of one file.")
@click.option("--adapter", is_flag=True, help="Of a run with LoRA: the adapter alone, as peft reads it.")
def export(run: Path, output: Path, iteration: int | None, dtype: str | None, shard: int, adapter: bool) -> None:
    """Write a checkpoint of the run directory RUN as a Hugging Face model. Needs no GPU.

    \b
    Examples:
      sftc export runs/quickstart -o models/quickstart
      sftc export runs/adapted -o adapters/mine --adapter
    """
    try:
        commands = reach("export")
    except MissingExtra as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(ERRORS)
    try:
        strangers = commands.foreign(output)
    except OSError as error:
        unusable(output, "read", error)
    for name in strangers[:1]:
        say("SFTC601", f"{output / name} was not written by sftc", "move it away, or export into another directory")
        sys.exit(REFUSED)
    line = answer(commands.write(run, output, iteration=iteration, dtype=dtype, max_shard=shard, adapter=adapter))
    click.echo(line, err=True)
