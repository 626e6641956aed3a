"""The command line: options, streams and exit codes. The only package of the compiler that prints or exits.

Exit codes are an interface: 0 done, 1 the recipe has errors, 2 a bad command line, 3 drift, 4 refused to overwrite,
70 a bug in sftc, 130 interrupted. stdout carries the product, stderr the talk: reports are talk, but the product of
`validate`, and of any command when they are asked for as one document (`--format json` or `sarif`), which stands alone
on stdout. Each command has a module of its own, which is loaded when the command is asked for.
"""

import os
import sys
import traceback
from importlib import import_module
from typing import NoReturn

import click

from .. import __version__
from .exits import BUG, INTERRUPTED

# In the order of the help: a recipe's way to a run, then what is around it. Names are `module:function`.
COMMANDS = {
    "init": "init:init",
    "import": "import_:import_group",
    "validate": "validate:validate",
    "compile": "compile:compile_command",
    "check": "check:check",
    "lock": "lock:lock",
    "estimate": "estimate:estimate_command",
    "diff": "diff:diff",
    "explain": "explain:explain",
    "migrate": "migrate:migrate",
    "data": "data:data",
    "preflight": "preflight:preflight",
    "runs": "runs:runs",
    "report": "report:report_command",
    "eval": "evaluate:evaluate",
    "export": "export:export",
    "schema": "schema:schema",
    "completion": "completion:completion",
}


class Lazy(click.Group):
    """Commands by name, each loaded when it is asked for: one must not pay for the imports of the others."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), function)
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sftc")
def cli() -> None:
    """Compile a recipe for supervised fine-tuning into files that are reviewed, and that then train on Megatron."""


def main() -> NoReturn:
    """The console script `sftc`: `cli` with the three endings of a program told apart."""
    try:
        sys.exit(cli.main(prog_name="sftc", standalone_mode=False) or 0)
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
