"""The command line: options, streams and exit codes. The only module of the compiler that prints or exits.

Exit codes are an interface: 0 done, 1 the recipe has errors, 2 a bad command line, 3 drift, 4 refused to overwrite,
70 a bug in sftc, 130 interrupted. stdout carries the product, stderr the talk.
"""

import os
import shlex
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import click

from . import __version__, builddir
from .builddir import State
from .compile import Checked, artifacts, check_recipe
from .diagnostics import Diagnostic, Severity, has_errors
from .plan import Plan
from .render import supervised
from .reporters import REPORTERS

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
            click.echo(f"{click.format_filename(path)}: {_task_line(result)}", err=True)
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
    click.echo(f"{result.plan.name}: {_layout_line(result.plan)}", err=True)
    starter = "sbatch" if result.plan["launch.launcher"] == "slurm" else "bash"
    script = "launch.sbatch" if starter == "sbatch" else "launch.sh"
    click.echo(f"start it with: {starter} {shlex.quote(str(output / script))}", err=True)
    click.echo(_task_line(result), err=True)


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


def _task_line(result: Checked) -> str:
    assert result.plan is not None
    assert result.document is not None
    task = result.plan.task
    what = ("" if task.kind == "sft" else "NOT SFT, ") + f"loss on {supervised(result.plan)}"
    place = result.document.places[task.pointers[0]].value
    return f"task: {task.kind}, {what}, because {task.reason} ({place.file}:{place.line}:{place.column})"


def _layout_line(plan: Plan) -> str:
    sizes = {name: plan[f"parallel.{key}"] for name, key in _SIZES.items()}
    layout = " * ".join(f"{name}({size})" for name, size in sizes.items())
    return (
        f"{layout} = {plan['launch.world_size']} rank(s), {plan['train.train_iters']} iterations of "
        f"{plan['train.global_batch_size']} samples, Megatron-Core {plan['megatron.target']}"
    )


_SIZES = {
    "TP": "tensor_model_parallel_size",
    "PP": "pipeline_model_parallel_size",
    "CP": "context_parallel_size",
    "DP": "data_parallel_size",
}
