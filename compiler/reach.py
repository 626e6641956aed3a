"""The one place in which the compiler reaches the runtime: its modules, loaded by name when a command asks for them."""

from importlib import import_module
from typing import Any

# The modules by what the compiler asks of them. Only those of config.json and of LoRA's targets are needed for
# compiling, and they are light; so is that of runs.
MODULES = {
    "config.json": "sftc.runtime.hf.config",
    "data": "sftc.runtime.data.commands",
    "eval": "sftc.runtime.answers.commands",
    "export": "sftc.runtime.hf.commands",
    "lock": "sftc.runtime.lock.commands",
    "lora.targets": "sftc.runtime.lora.targets",
    "preflight": "sftc.runtime.preflight.commands",
    "runs": "sftc.runtime.runs.commands",
}
EXTRAS = {"data": "data", "eval": "runtime", "export": "runtime"}


class MissingExtra(Exception):
    """The message names the library that is not installed and the remedy."""


def reach(name: str) -> Any:
    """A module of MODULES. MissingExtra if a library that it needs is not installed."""
    try:
        return import_module(MODULES[name])
    except ModuleNotFoundError as error:
        library, extra = (error.name or "sftc").partition(".")[0], EXTRAS.get(name)
        if library == "sftc" or extra is None:
            raise
        raise MissingExtra(
            f"`sftc {name}` needs the extra `{extra}`, and `{library}` is not installed: pip install 'sftc[{extra}]'"
        ) from None
