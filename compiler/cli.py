"""The command line: options, streams and exit codes. The only module of the compiler that prints or exits.

Exit codes are an interface: 0 done, 1 the recipe has errors, 2 a bad command line, 3 drift, 4 refused to overwrite,
70 a bug in sftc, 130 interrupted. stdout carries the product, stderr the talk.
"""

import contextlib
import json
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from . import __version__, builddir, data_commands, export_command
from .builddir import State
from .compile import Checked, artifacts, check_recipe
from .diagnostics import Diagnostic, Severity, has_errors
from .plan import Plan
from .reporters import REPORTERS
from .summary import layout_line, task_line

RECIPE = click.Path(path_type=Path)
ERRORS, DRIFT, REFUSED, BUG, INTERRUPTED = 1, 3, 4, 70, 130


def _not_empty(_context: click.Context, _parameter: click.Parameter, path: Path | str) -> Path:
    """`-o "$UNSET"` is a slip, not the current directory."""
    if path == "":
        raise click.BadParameter("the directory has no name; write `-o .` for the current one")
    return Path(path)


build_dir = click.option(
    "-o", "--output", required=True, type=click.Path(), callback=_not_empty, metavar="DIR", help="The build dir."
)
report_format = click.option(
    "--format", "style", type=click.Choice(list(REPORTERS)), default="text", help="How problems are reported."
)
strict = click.option("--strict", is_flag=True, help="Warnings count as errors.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sftc")
def cli() -> None:
    """Compile a recipe for supervised fine-tuning into files that are reviewed, and that then train on Megatron."""


@cli.command()
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True, type=RECIPE)
@strict
@report_format
def validate(recipes: tuple[Path, ...], strict: bool, style: str) -> None:
    """Check recipes and report everything that is wrong with them. Writes nothing.

    \b
    Example:
      sftc validate recipes/quickstart/recipe.yaml
    """
    results = [check_recipe(path, click.format_filename(path)) for path in recipes]
    _report(results, style, stream=sys.stdout)
    for path, result in zip(recipes, results, strict=True):
        if result.plan is not None:
            click.echo(f"{click.format_filename(path)}: {task_line(result)}", err=True)
    if any(_failed(result, strict) for result in results):
        sys.exit(ERRORS)


@cli.command("compile")
@click.argument("recipe", type=RECIPE)
@build_dir
@click.option("--force", is_flag=True, help="Overwrite artifacts that were edited. Foreign files are never touched.")
@strict
@report_format
def compile_command(recipe: Path, output: Path, force: bool, strict: bool, style: str) -> None:
    """Compile RECIPE into the build dir DIR.

    \b
    Example:
      sftc compile recipes/quickstart/recipe.yaml -o build/quickstart
      bash build/quickstart/launch.sh
    """
    result = check_recipe(recipe, click.format_filename(recipe))
    _report([result], style, stream=sys.stderr)
    if result.plan is None or _failed(result, strict):
        sys.exit(ERRORS)
    files = artifacts(result)
    try:
        drift = builddir.scan(output, files)
        _refuse(drift, output, force)
        _refuse_input(result.plan["tokenizer.chat_template"], recipe, output)
        written = builddir.apply(output, files, drift)
    except OSError as error:
        _unusable(output, "written", error)
    for path in drift.having(State.LEFTOVER):
        click.echo(f"  removed    {output / path}", err=True)
    for file in files:
        click.echo(f"  {'wrote    ' if file.path in written else 'unchanged'}  {output / file.path}", err=True)
    click.echo(f"{result.plan.name}: {layout_line(result.plan)}", err=True)
    starter = "sbatch" if result.plan["launch.launcher"] == "slurm" else "bash"
    script = "launch.sbatch" if starter == "sbatch" else "launch.sh"
    click.echo(f"start it with: {starter} {shlex.quote(str(output / script))}", err=True)
    click.echo(task_line(result), err=True)


@cli.command()
@click.argument("recipe", type=RECIPE)
@build_dir
@report_format
def check(recipe: Path, output: Path, style: str) -> None:
    """Say whether the build dir DIR is what RECIPE compiles to now; exit 3 if it is not. Writes nothing.

    \b
    Example:
      sftc check recipes/quickstart/recipe.yaml -o build/quickstart
    """
    result = check_recipe(recipe, click.format_filename(recipe))
    _report([result], style, stream=sys.stderr)
    if result.plan is None:
        sys.exit(ERRORS)
    try:
        drift = builddir.scan(output, artifacts(result))
    except OSError as error:
        _unusable(output, "read", error)
    for path, state in drift.states.items():
        click.echo(f"{state:<8}  {output / path}")
    if not drift.clean:
        sys.exit(DRIFT)


@cli.group()
def data() -> None:
    """Prepare the data of a recipe and look at it. Needs the extra `data`: pip install 'sftc[data]'."""


@data.command("prepare")
@click.argument("recipe", type=RECIPE)
def data_prepare(recipe: Path) -> None:
    """Turn the rows of RECIPE into tokens and masks, as launch.sh does it, and print where they are.

    \b
    Example:
      sftc data prepare recipes/quickstart/recipe.yaml
    """
    with _data_of(recipe) as (commands, about, _):
        click.echo(_answer(commands.prepare_recipe(about)), nl=False)


@data.command("stats")
@click.argument("recipe", type=RECIPE)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", help="What is printed.")
def data_stats(recipe: Path, style: str) -> None:
    """Print what the prepared data of RECIPE holds: counts, lengths, what is trained on, what was left out and why.

    \b
    Example:
      sftc data stats recipes/quickstart/recipe.yaml
    """
    with _data_of(recipe) as (commands, about, _):
        found = _answer(commands.statistics(about))
        text = json.dumps(found, indent=2, ensure_ascii=False) + "\n" if style == "json" else commands.table(found)
        click.echo(text, nl=False)


@data.command("preview")
@click.argument("recipe", type=RECIPE)
@click.option("-n", "count", type=click.IntRange(min=1), help="How many samples; 5, or 1 with --row.")
@click.option("--split", type=click.Choice(["train", "valid"]), help="Of which data; train, or both with --html.")
@click.option("--row", type=click.IntRange(min=1), help="The first sample to show, counted from 1.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page for the review.")
def data_preview(recipe: Path, count: int | None, split: str | None, row: int | None, page: Path | None) -> None:
    """Show samples of RECIPE token by token, those that are trained on in colour.

    \b
    Examples:
      sftc data preview recipes/quickstart/recipe.yaml -n 3
      sftc data preview recipes/quickstart/recipe.yaml --html preview.html
    """
    target = None if page is None else Path.cwd() / page
    with _data_of(recipe) as (commands, about, plan):
        splits = (split,) if split else commands.splits(about) if page else ("train",)
        choice = commands.Choice(splits=splits, first=row or 1, count=count or (1 if row else 5))
        if page is None or target is None:
            colour = _colour(sys.stdout)
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
            click.echo(_answer(commands.preview(about, choice, colour, columns)), nl=False, color=colour)
            return
        try:
            if not data_commands.is_page(target):
                _say("SFTC601", f"{page} was not written by sftc", "move it away, or name another file")
                sys.exit(REFUSED)
            data_commands.write_page(target, _answer(commands.page(about, choice)), plan)
        except OSError as error:
            _unusable(page, "written", error)
    click.echo(f"wrote {page}", err=True)


def _size(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    size = export_command.bytes_of(text)
    if size is None:
        raise click.BadParameter("write it as in 5GB or 500MB")
    return size


@cli.command()
@click.argument("run", type=RECIPE)
@click.option(
    "-o", "--output", required=True, type=click.Path(), callback=_not_empty, metavar="DIR", help="What is written."
)
@click.option("--iteration", type=click.IntRange(min=1), help="Of which checkpoint; the newest.")
@click.option("--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), help="Of the weights; that of the training.")
@click.option("--max-shard-size", "shard", default="5GB", callback=_size, show_default=True, help="Of one file.")
def export(run: Path, output: Path, iteration: int | None, dtype: str | None, shard: int) -> None:
    """Write a checkpoint of the run directory RUN as a Hugging Face model. Needs no GPU.

    \b
    Example:
      sftc export runs/quickstart -o models/quickstart
    """
    try:
        commands = export_command.runtime()
    except data_commands.MissingExtra as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(ERRORS)
    try:
        strangers = commands.foreign(output)
    except OSError as error:
        _unusable(output, "read", error)
    for name in strangers[:1]:
        _say("SFTC601", f"{output / name} was not written by sftc", "move it away, or export into another directory")
        sys.exit(REFUSED)
    line = _answer(commands.write(run, output, iteration=iteration, dtype=dtype, max_shard=shard))
    click.echo(line, err=True)


@contextlib.contextmanager
def _data_of(recipe: Path) -> Iterator[tuple[Any, Any, Plan]]:
    """The runtime's data commands, the recipe as they take it, and its plan; where launch.sh would look for paths."""
    result = check_recipe(recipe, click.format_filename(recipe))
    _report([result], "text", stream=sys.stderr)
    if result.plan is None:
        sys.exit(ERRORS)
    try:
        commands = data_commands.runtime()
    except data_commands.MissingExtra as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(ERRORS)
    root = os.environ.get("SFTC_ROOT") or "."
    if not Path(root).is_dir():
        raise click.UsageError(f"SFTC_ROOT is no directory: {root}")
    with contextlib.chdir(root):
        yield commands, data_commands.recipe_of(commands, result.plan), result.plan


def _answer[T](found: T | None) -> T:
    """None means that the problem has been told."""
    if found is None:
        sys.exit(ERRORS)
    return found


def main() -> NoReturn:
    """The console script `sftc`: `cli` with the three endings of a program told apart."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our stdout (head, less) has gone: not our failure, and nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:
        click.echo(
            f"a bug in sftc {__version__}, Python {sys.version.split()[0]}; please report what follows", err=True
        )
        traceback.print_exc()
        sys.exit(BUG)


def _report(results: Iterable[Checked], style: str, stream: object) -> None:
    found = [diagnostic for result in results for diagnostic in result.diagnostics]
    sources = {result.source.name: result.source.text for result in results if result.source}
    if found or style == "json":
        click.echo(REPORTERS[style](found, sources, _colour(stream)), file=stream, nl=False)  # type: ignore[arg-type]


def _colour(stream: object) -> bool:
    return bool(getattr(stream, "isatty", bool)()) and "NO_COLOR" not in os.environ


def _failed(result: Checked, strict: bool) -> bool:
    return has_errors(result.diagnostics) or (strict and bool(result.diagnostics))


def _refuse(drift: builddir.Drift, output: Path, force: bool) -> None:
    """Ends the program when a file in the way is not ours to replace."""
    for path in drift.having(State.FOREIGN):
        _say("SFTC601", f"{output / path} was not written by sftc", "move it away, or compile into another directory")
    edited = [] if force else drift.having(State.EDITED)
    for path in edited:
        _say("SFTC602", f"{output / path} was edited", "put the change into the recipe; --force overwrites the edit")
    if edited or drift.having(State.FOREIGN):
        sys.exit(REFUSED)


def _refuse_input(template: str | None, recipe: Path, output: Path) -> None:
    """An input that lies where its copy would go would count as the copy, and go when the recipe needs it no more."""
    target = output / "chat_template.jinja"
    if template is not None and target.exists() and target.samefile(recipe.parent / template):
        _say("SFTC601", f"{target} is the recipe's own chat template", "compile into another directory")
        sys.exit(REFUSED)


def _unusable(output: Path, verb: str, error: OSError) -> NoReturn:
    reason = f"{output} cannot be {verb}: {error.strerror or error}"
    _say("SFTC603", reason, "check the path, its permissions and the free disk space")
    sys.exit(ERRORS)


def _say(code: str, message: str, help: str) -> None:
    report = Diagnostic(code=code, severity=Severity.ERROR, message=message, help=help)
    click.echo(REPORTERS["text"]([report], {}, _colour(sys.stderr)), err=True, nl=False)
