"""`sftc import`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from .. import builddir
from ..importers.finish import Imported
from ..importers.given import GivenError, read_given
from ..importers.ledger import Fate
from ..importers.megatron import import_megatron
from ..importers.primus import import_primus
from ..importers.request import Request
from ..reporters import REPORTERS
from .shared import ERRORS, RECIPE, REFUSED, colour, report_format, say, unusable


@click.group("import")
def import_group() -> None:
    """Make a recipe of another tool's configuration.

    The recipe goes to stdout, or into a file with -o; what was not mapped, and why, to stderr.

    \b
    Example:
      sftc import primus llama2_7B-sft.yaml -o recipe.yaml --set launch.nproc_per_node=8
      sftc import megatron train.sh --task sft -o recipe.yaml
    """


def _given(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    try:
        return read_given(words)
    except GivenError as error:
        raise click.BadParameter(str(error)) from None


def _variables(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise click.BadParameter(f"`{name}` is no VARIABLE=VALUE")
    return {name: value for name, _, value in pairs}


OPTIONS = (
    click.option("-o", "--output", type=RECIPE, metavar="FILE", help="Write the recipe here, not to stdout."),
    click.option("--force", is_flag=True, help="Overwrite FILE."),
    click.option("--draft", is_flag=True, help="Write what there is even if errors remain; the exit code says so."),
    click.option("--task", type=click.Choice(["sft", "pretrain"]), help="Where the source does not say what it is."),
    click.option(
        "--set",
        "given",
        multiple=True,
        callback=_given,
        metavar="KEY=VALUE",
        help="A value of the recipe, before what the source says; repeatable.",
    ),
    click.option(
        "--env",
        "variables",
        multiple=True,
        callback=_variables,
        metavar="VAR=VALUE",
        help="What a variable of the source holds; repeatable.",
    ),
    report_format,
)


def common[F: Callable[..., None]](command: F) -> F:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@import_group.command()
@click.argument("file", type=RECIPE)
@click.option("--primus-root", "root", type=RECIPE, metavar="DIR", help="A checkout of Primus, for its presets.")
@common
def primus(file: Path, root: Path | None, **rest: Any) -> None:
    """Make a recipe of a Primus experiment.

    FILE has modules.post_trainer with its overrides. What Primus would drop is pointed out, and not taken.

    \b
    Example:
      sftc import primus llama2_7B-sft.yaml --primus-root ~/Primus -o recipe.yaml --set launch.nproc_per_node=8
    """
    request = _request(rest, root)
    _end(import_primus(file, click.format_filename(file), request), **rest)


@import_group.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@common
def megatron(file: Path, **rest: Any) -> None:
    """Make a recipe of a Megatron command line.

    FILE is a script that starts Megatron, or a list of its options; `-` is standard input. The script is read, never
    run. A command line without --sft does not say that it is SFT: say it with --task.

    \b
    Example:
      sftc import megatron train.sh --task sft --env DATA_PATH=data --set tokenizer.path=tokenizers/llama-3
    """
    path, name = (None, "<stdin>") if str(file) == "-" else (file, click.format_filename(file))
    _end(import_megatron(path, name, _request(rest)), **rest)


def _request(rest: Mapping[str, Any], root: Path | None = None) -> Request:
    output = rest["output"]
    return Request(
        variables=rest["variables"],
        given=rest["given"],
        task=rest["task"],
        root=root,
        output=click.format_filename(output) if output else "<recipe>",
    )


def _end(done: Imported, *, output: Path | None, force: bool, draft: bool, style: str, **_: Any) -> None:
    if done.diagnostics or style == "json":
        click.echo(REPORTERS[style](done.diagnostics, done.sources, colour(sys.stderr)), err=True, nl=False)
    _account(done, listed=bool(done.text) and output is None and (done.valid or draft))
    if done.text and (done.valid or draft):
        _write(done.text, output, force)
    if not done.valid:
        if done.text and not draft:
            click.echo("no recipe was written: mend the errors, or take what there is with --draft", err=True)
        sys.exit(ERRORS)


def _account(done: Imported, *, listed: bool) -> None:
    """`listed`: the recipe on stdout ends with what was not mapped."""
    for entry in done.entries:
        if entry.fate is Fate.UNMAPPED and not listed:
            click.echo(f"not mapped: {entry.setting.where}: {entry.setting.shown}: {entry.note}", err=True)
    counts = ", ".join(f"{done.count(fate)} {fate}" for fate in Fate)
    if done.entries:
        click.echo(f"{len(done.entries)} settings: {counts}", err=True)


def _write(text: str, output: Path | None, force: bool) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    if output.exists() and not force:
        say("SFTC601", f"{output} is there already", "name another file; --force overwrites it")
        sys.exit(REFUSED)
    try:
        builddir.write_file(output, text.encode())
    except OSError as error:
        unusable(output, "written", error)
    click.echo(f"  wrote      {output}", err=True)
