"""Which Megatron is here, and what it makes of its arguments."""

import contextlib
import io
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UserError


def require_target(target: str) -> str:
    """The installed version, such as `0.19.2`. UserError when there is none or it is not the target's release line."""
    spec = find_spec("megatron.core") if find_spec("megatron") else None
    if spec is None or spec.origin is None:
        raise UserError(
            "Megatron is not installed here",
            help=f'`pip install "megatron-core[training]=={target}.*"`, or set `megatron.path` to a checkout',
        )
    # read, not imported: importing megatron.core takes seconds, and its __version__ ends with a git hash
    text = (Path(spec.origin).parent / "package_info.py").read_text(encoding="utf-8")
    found = ".".join(re.findall(r"^(?:MAJOR|MINOR|PATCH) = (\d+)", text, re.MULTILINE))
    if found.split(".")[:2] != target.split(".")[:2]:
        raise UserError(
            f"this build is for Megatron {target}, installed is {found} (`{Path(spec.origin).parent}`)",
            help=f'`pip install "megatron-core[training]=={target}.*"`, or set `megatron.target` and compile again',
        )
    return found


def require_layers(transformer_impl: str) -> None:
    """UserError when the recipe asks for Transformer Engine and this machine has none."""
    if transformer_impl == "transformer_engine" and find_spec("transformer_engine") is None:
        raise UserError(
            "`model.transformer_impl: transformer_engine` and Transformer Engine is not installed here",
            help="`pip install --no-build-isolation transformer_engine[pytorch]` on a machine with CUDA, or set "
            "`model.transformer_impl: local` (torch-native layers)",
        )


def read_argument_file(path: Path) -> list[str]:
    """One option with its values per line, quoted as in a shell, `#` begins a comment. Megatron reads no such file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [word for line in lines for word in shlex.split(line, comments=True)]


def parse(arguments: Sequence[str]) -> Any:
    """Megatron's own parser and validator, which also set its global state. UserError for what they refuse."""
    from megatron.training.arguments import parse_and_validate_args

    complaint, argv = io.StringIO(), sys.argv
    sys.argv = [argv[0], *arguments]
    try:
        with contextlib.redirect_stderr(complaint):
            return parse_and_validate_args()
    except SystemExit:
        said = complaint.getvalue().strip().splitlines()
        raise UserError(_refusal(said[-1].partition("error: ")[2] if said else ""), help=_ARGUMENTS_HELP) from None
    except (AssertionError, ValueError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(_refusal(str(error) or f"it requires `{where.line}`"), help=_ARGUMENTS_HELP) from error
    finally:
        sys.argv = argv


_ARGUMENTS_HELP = "change the recipe key that stands behind the option in megatron.args, and compile again"


def _refusal(text: str) -> str:
    return f"Megatron refuses its arguments: {text}"
