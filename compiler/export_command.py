"""`sftc export`: the runtime's Hugging Face half, loaded by name when it is asked for. Neither prints nor exits."""

import re
from importlib import import_module
from typing import Any

from .data_commands import MissingExtra

RUNTIME = "sftc.runtime.hf.commands"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def runtime() -> Any:
    """The module of the export. MissingExtra if a library that it needs is not installed."""
    try:
        return import_module(RUNTIME)
    except ModuleNotFoundError as error:
        library = (error.name or "sftc").partition(".")[0]
        if library == "sftc":
            raise
        raise MissingExtra(
            f"`sftc export` needs the extra `runtime`, and `{library}` is not installed: pip install 'sftc[runtime]'"
        ) from None


def bytes_of(size: str) -> int | None:
    """`5GB` as a number of bytes, in powers of ten; None if it is no size."""
    match = re.fullmatch(r"([1-9]\d*) ?([KMG]B)?", size.strip().upper())
    return int(match[1]) * UNITS[match[2] or ""] if match else None
