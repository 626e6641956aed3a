"""`sftc migrate`."""

import sys
from difflib import unified_diff
from pathlib import Path

import click

from .. import builddir
from ..compile import check_recipe
from ..migrate import migrate as migrated
from ..source import read_source
from .shared import ERRORS, RECIPE, report, unusable


@click.command()
@click.argument("recipe", type=RECIPE)
@click.option("--write", is_flag=True, help="Change the file, and check it; without, print what would change.")
def migrate(recipe: Path, write: bool) -> None:
    """Rename and move keys of RECIPE that are spelled as in another tool or version, or stand in another section.

    Comments stay. Only what leaves no choice is done; a probable slip is left to you. --write exits 1 if the recipe
    still has errors. A recipe has no version number: a key keeps its meaning, and a new meaning gets a new key.

    \b
    Examples:
      sftc migrate recipe.yaml
      sftc migrate recipe.yaml --write
    """
    name = click.format_filename(recipe)
    source, found = read_source(recipe, name)
    if source is None:
        report([], "text", sys.stderr, found)
        sys.exit(ERRORS)
    result = migrated(source)
    for old, new in result.done:
        click.echo(f"  {old} -> {new}", err=True)
    for line in result.left:
        click.echo(f"  {line}", err=True)
    if not result.done:
        click.echo(f"{name}: nothing to migrate", err=True)
    if not write:
        before, after = (text.splitlines() for text in (source.text, result.text))
        click.echo("".join(f"{line}\n" for line in unified_diff(before, after, name, name, lineterm="")), nl=False)
        return
    if result.done:
        _write(recipe, result.text)
    checked = check_recipe(recipe, name)
    report([checked], "text", sys.stderr)
    if checked.plan is None:
        sys.exit(ERRORS)


def _write(recipe: Path, text: str) -> None:
    """Line ends, a byte order mark and the mode stay as they are; of a link, the file behind it is changed."""
    try:
        file = recipe.resolve()
        raw = file.read_bytes()
        text = text.replace("\n", "\r\n") if b"\r\n" in raw else text
        mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
        builddir.write_file(file, mark + text.encode(), file.stat().st_mode & 0o777)
    except OSError as error:
        unusable(recipe, "written", error)
