"""`sftc init`."""

import sys
from pathlib import Path

import click

from .. import builddir
from ..render import render_recipe
from ..schemas import recipe_schema
from ..suggest import closest
from .shared import REFUSED, say, unusable


def _preset(_context: click.Context, _parameter: click.Parameter, name: str | None) -> str | None:
    names = presets()
    if name is not None and name not in names:
        near = closest(name, names)
        meant = f"did you mean `{near}`?" if near else f"there are: {', '.join(names) or 'none'}"
        raise click.BadParameter(f"there is no preset `{name}`; {meant}")
    return name


def presets() -> list[str]:
    """The published models that `model.preset` takes."""
    schema = recipe_schema()["properties"]["model"]["properties"].get("preset", {})
    return [name for name in schema.get("enum", ()) if name is not None]


@click.command()
@click.option("--preset", callback=_preset, metavar="NAME", help="Take the shape of a published model.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write a file that is not there.")
def init(preset: str | None, output: Path | None) -> None:
    """Print a commented recipe to start from. Never overwrites a file.

    \b
    Examples:
      sftc init
      sftc init -o recipe.yaml
      sftc init --preset llama-3.2-1b -o recipe.yaml
    """
    text = render_recipe(preset or "my-run", preset)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        if output.exists() or output.is_symlink():
            say("SFTC601", f"{output} is there already", "name another file, or move it away")
            sys.exit(REFUSED)
        builddir.write_file(output, text.encode())
    except OSError as error:
        unusable(output, "written", error)
    click.echo(f"wrote {output}; next: sftc validate {output}", err=True)
