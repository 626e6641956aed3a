"""The launcher and the device."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..container import is_file
from ..diagnostics import Diagnostic
from ..schemas import leaves
from .context import Context

# TOKENIZERS_PARALLELISM and MAX_TOKENS are none.
SECRET = re.compile(r"TOKEN(?!IZE|S)|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)

# What bash lets nobody set; what torchrun tells each rank; what launch.sh reads before it exports anything.
SET_BY_BASH = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
SET_BY_TORCHRUN = frozenset({"RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"})
SET_BY_STARTER = frozenset({"MASTER_ADDR", "MASTER_PORT", "SFTC_IN_CONTAINER", "SFTC_ROOT"})


def device(context: Context) -> Iterator[Diagnostic]:
    where = context["launch.device"]
    if where == "cuda":
        return
    if context["train.precision"] == "fp16":
        message = f"fp16 needs a GPU, and launch.device is {where}"
        yield context.error("SFTC452", "train.precision", message, also=("launch.device",), help="use bf16 or fp32")
    if context["model.transformer_impl"] == "transformer_engine":
        message = f"Transformer Engine needs a GPU, and launch.device is {where}"
        yield context.error("SFTC452", "model.transformer_impl", message, also=("launch.device",), help="use `local`")


def secrets(context: Context) -> Iterator[Diagnostic]:
    for name in context["launch.environment"]:
        listed = name in context["launch.secrets"]
        if listed or SECRET.search(name):
            what = "stands in `launch.secrets`" if listed else "looks like a secret"
            found = context.error(
                "SFTC453",
                f"launch.environment.{name}",
                f"`{name}` {what}, and its value would stand in the build dir",
                help="name it in `launch.secrets` and export it where launch.sh is started; the ranks inherit it",
            )
            # Reports quote the line at a place, and end up in the logs of a CI job: the value must not.
            where = f" (`launch.environment`, {found.span.file}:{found.span.line})" if found.span else ""
            yield replace(found, span=None, message=found.message + where)


def variables(context: Context) -> Iterator[Diagnostic]:
    for name in context["launch.environment"]:
        if name in SET_BY_BASH:
            message, help = f"`{name}` is read-only in bash", "leave it out"
        elif name in SET_BY_TORCHRUN:
            message, help = f"torchrun sets `{name}` for each rank", "leave it out"
        elif name in SET_BY_STARTER:
            message, help = f"launch.sh reads `{name}` before it exports this", "export it where launch.sh is started"
        elif name == "PYTHONPATH" and context["megatron.path"] is not None:
            message, help = "`megatron.path` sets `PYTHONPATH`", "export the rest of it where launch.sh is started"
        else:
            continue
        yield context.error("SFTC456", f"launch.environment.{name}", message, help=help)


def home_directories(context: Context) -> Iterator[Diagnostic]:
    for key, value in _paths(context).items():
        if value and value.removeprefix("hf:").startswith("~"):
            message = f"`{value}` names a folder called `~`: a recipe's paths are not expanded"
            help = "write it relative to the folder where launch.sh is started, or absolute"
            yield context.warning("SFTC454", key, message, help=help)


def unwritable(context: Context) -> Iterator[Diagnostic]:
    """Values for which a generated file has no spelling: its lines are read one by one."""
    raw = {f"megatron.args.{name}": value for name, value in context["megatron.args"].items()}
    for key, value in (_paths(context) | raw).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "".join(text.splitlines()) != text:
                yield context.error("SFTC455", key, f"`{key}` holds a line break", help="write it on one line")


def _paths(context: Context) -> dict[str, Any]:
    """Every run-time path, by its key."""
    paths = {key: context[key] for key, schema in leaves() if schema.get("format") == "run-time-path"}
    sources = context["data.sources"] or []
    paths |= {f"data.sources.{number}.path": source["path"] for number, source in enumerate(sources)}
    engine, image = context["launch.container.engine"], context["launch.container.image"]
    if engine is not None and is_file(engine, image):
        paths["launch.container.image"] = image
    mounts = context["launch.container.mounts"] or []
    return paths | {f"launch.container.mounts.{number}": text for number, text in enumerate(mounts)}


def inprocess_restarts(context: Context) -> Iterator[Diagnostic]:
    if context["launch.max_inprocess_restarts"] and context["checkpoint.async_save"]:
        yield context.error(
            "SFTC457",
            "launch.max_inprocess_restarts",
            "ranks that save beside the training (`checkpoint.async_save`) cannot begin again in the same processes",
            also=("checkpoint.async_save",),
            help="set `checkpoint.async_save: false`, or `launch.max_restarts`: torchrun starts new processes",
        )


RULES = (device, secrets, variables, home_directories, unwritable, inprocess_restarts)
