"""Which Megatron is here, and what it makes of its arguments."""

import contextlib
import io
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UserError


def require_target(target: str) -> str:
    """The installed version, such as `0.19.2`. UserError when there is none or it is not the target's release line."""
    folder = _installed()
    if folder is None:
        raise UserError(
            "Megatron is not installed here",
            help=f'`pip install "megatron-core[training]=={target}.*"`, or set `megatron.path` to a checkout',
        )
    found = _version(folder)
    if found.split(".")[:2] != target.split(".")[:2]:
        raise UserError(
            f"this build is for Megatron {target}, installed is {found} (`{folder}`)",
            help=f'`pip install "megatron-core[training]=={target}.*"`, or set `megatron.target` and compile again',
        )
    return found


def release_line() -> str:
    """The line of the installed Megatron, such as `0.19`."""
    folder = _installed()
    assert folder is not None, "Megatron is installed: see require_target"
    return ".".join(_version(folder).split(".")[:2])


def _installed() -> Path | None:
    """The folder of `megatron.core`; found, not imported, which takes seconds."""
    spec = find_spec("megatron.core") if find_spec("megatron") else None
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _version(folder: Path) -> str:
    # read as text: the module's __version__ ends with a git hash
    text = (folder / "package_info.py").read_text(encoding="utf-8")
    return ".".join(re.findall(r"^(?:MAJOR|MINOR|PATCH) = (\d+)", text, re.MULTILINE))


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
    """Megatron's own parser and validator, which also set its global state. UserError for what they refuse.

    0.17 validates and sets it within pretrain(): there the arguments are not validated yet.
    """
    from megatron.training import arguments as megatron

    complaint, argv = io.StringIO(), sys.argv
    sys.argv = [argv[0], *arguments]
    try:
        with contextlib.redirect_stderr(complaint):
            return _parsed(megatron)
    except SystemExit:
        said = complaint.getvalue().strip().splitlines()
        raise UserError(_refusal(said[-1].partition("error: ")[2] if said else ""), help=_ARGUMENTS_HELP) from None
    except (AssertionError, ValueError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(_refusal(str(error) or f"it requires `{where.line}`"), help=_ARGUMENTS_HELP) from error
    finally:
        sys.argv = argv


def _parsed(megatron: ModuleType) -> Any:
    if hasattr(megatron, "parse_and_validate_args"):
        return megatron.parse_and_validate_args()
    args = megatron.parse_args()
    megatron.validate_args(deepcopy(args))  # which changes them, and cannot be done twice
    return args


_ARGUMENTS_HELP = "change the recipe key that stands behind the option in megatron.args, and compile again"


def _refusal(text: str) -> str:
    return f"Megatron refuses its arguments: {text}"
