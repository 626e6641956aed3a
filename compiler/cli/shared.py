"""What the commands share: common options, exit codes, and how problems are told."""

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import click

from .. import overrides as override
from ..compile import Checked
from ..diagnostics import Diagnostic, Severity, has_errors
from ..reporters import DOCUMENTS, REPORTERS
from .exits import DRIFT as DRIFT
from .exits import ERRORS as ERRORS
from .exits import REFUSED as REFUSED

RECIPE = click.Path(path_type=Path)
STDIN = "<stdin>"


def not_empty(_context: click.Context, _parameter: click.Parameter, path: Path | str | None) -> Path | None:
    """`-o "$UNSET"` is a slip, not the current directory."""
    if path == "":
        raise click.BadParameter("the directory has no name; write `-o .` for the current one")
    return None if path is None else Path(path)


def source_of(recipe: Path) -> tuple[Path | None, str]:
    """Where a recipe is read from, None for standard input, and what messages call it."""
    return (None, STDIN) if str(recipe) == "-" else (recipe, click.format_filename(recipe))


def _well_formed(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        if problem := override.problem(one):
            raise click.BadParameter(problem)
    return given


build_dir = click.option(
    "-o", "--output", required=True, type=click.Path(), callback=not_empty, metavar="DIR", help="The build dir."
)
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_well_formed,
    help="Override a value of the recipe, as in --set train.lr=1e-5; repeatable.",
)
report_format = click.option(
    "--format", "style", type=click.Choice(list(REPORTERS)), default="text", help="How problems are reported."
)
strict = click.option("--strict", is_flag=True, help="Warnings count as errors.")


def report(
    results: Iterable[Checked], style: str, stream: object, more: Iterable[Diagnostic] = (), *, alone: bool = True
) -> None:
    """Tell what is wrong with recipes, and then `more`. A document goes to stdout, if it stands alone there."""
    results = list(results)
    found = [diagnostic for result in results for diagnostic in result.diagnostics]
    sources = {name: text for result in results for name, text in result.texts.items()}
    stream = sys.stdout if alone and style in DOCUMENTS else stream
    if text := REPORTERS[style]([*found, *more], sources, colour(stream)):
        click.echo(text, file=stream, nl=False)  # type: ignore[arg-type]


def colour(stream: object) -> bool:
    return bool(getattr(stream, "isatty", bool)()) and "NO_COLOR" not in os.environ


def failed(result: Checked, strict: bool) -> bool:
    return has_errors(result.diagnostics) or (strict and bool(result.diagnostics))


def at_root() -> contextlib.chdir[str]:
    """Where launch.sh would look for run-time paths, as the current directory."""
    root = os.environ.get("SFTC_ROOT") or "."
    if not Path(root).is_dir():
        raise click.UsageError(f"SFTC_ROOT is no directory: {root}")
    return contextlib.chdir(root)


def answer[T](found: T | None) -> T:
    """None means that the problem has been told."""
    if found is None:
        sys.exit(ERRORS)
    return found


def unusable(output: Path, verb: str, error: OSError) -> NoReturn:
    report([], "text", sys.stderr, [cannot(output, verb, error)])
    sys.exit(ERRORS)


def say(code: str, message: str, help: str) -> None:
    report([], "text", sys.stderr, [problem(code, message, help)])


def cannot(output: Path, verb: str, error: OSError) -> Diagnostic:
    reason = f"{output} cannot be {verb}: {error.strerror or error}"
    return problem("SFTC603", reason, "check the path, its permissions and the free disk space")


def problem(code: str, message: str, help: str) -> Diagnostic:
    """An error about a file that is no recipe."""
    return Diagnostic(code=code, severity=Severity.ERROR, message=message, help=help)
