"""`sftc lock`."""

import json
import sys
from pathlib import Path

import click

from .. import lock_command
from ..compile import Checked, check_recipe
from ..lock import lock_path, read_lock
from ..wording import plural
from .shared import DRIFT, ERRORS, RECIPE, answer, at_root, overrides, report, source_of, unusable


@click.command()
@click.argument("recipe", type=RECIPE)
@click.option("--check", "only_check", is_flag=True, help="Only say whether the lock is current; exit 3 if it is not.")
@overrides
def lock(recipe: Path, only_check: bool, overrides: tuple[str, ...]) -> None:
    """Write digests of what a run of RECIPE reads (rows, tokenizer, chat template, weights) to the lock beside it.

    recipe.yaml gets recipe.lock. Run-time paths are looked up where launch.sh would be started, or in SFTC_ROOT.

    \b
    Examples:
      sftc lock recipes/quickstart/recipe.yaml
      sftc lock recipes/quickstart/recipe.yaml --check
    """
    path, name = source_of(recipe)
    if path is None:
        raise click.UsageError("a lock lies beside its recipe: name the file")
    result = check_recipe(path, name, overrides, locked=False)
    report([result], "text", stream=sys.stderr)
    if result.plan is None:
        sys.exit(ERRORS)
    target = lock_path(recipe)
    if only_check:
        _check(target, result)
        return
    with at_root():
        content = answer(lock_command.make(result.plan))
    try:
        written = lock_command.write(target, content)
    except OSError as error:
        unusable(target, "written", error)
    for key, one in content["inputs"].items():
        sizes = [facts["size"] for facts in one["files"].values()]
        click.echo(f"  {key}: {one['path']}, {plural(len(sizes), 'file')}, {sum(sizes):,} bytes", err=True)
    click.echo(f"{'wrote' if written else 'unchanged'} {target}; compile the recipe to take it in", err=True)


def _check(target: Path, result: Checked) -> None:
    """Ends the program unless the lock is one of this recipe, and of its inputs as they are now."""
    assert result.plan is not None
    assert result.document is not None
    if not target.exists():
        click.echo(f"there is no {target}", err=True)
        sys.exit(DRIFT)
    source, content, found = read_lock(target, str(target), result.plan, result.document)
    if content is None:
        sources = (*result.sources, source) if source else result.sources
        report([Checked(sources=sources, document=None, plan=None, diagnostics=found)], "text", stream=sys.stderr)
        sys.exit(DRIFT)
    with at_root():
        different = lock_command.differences(json.loads(content), result.plan)
    for line in different:
        click.echo(line)
    if different:
        sys.exit(DRIFT)
    click.echo(f"{target} is current", err=True)
