"""The launcher and the device."""

import re
from collections.abc import Iterator

from ..diagnostics import Diagnostic
from ..schemas import leaves
from .context import Context

SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)


def slurm_keys(context: Context) -> Iterator[Diagnostic]:
    if context["launch.launcher"] == "slurm":
        return
    for key in context.plan.values:
        if key.startswith("launch.slurm.") and context.stated(key):
            message = f"`{key}` is read only with launch.launcher: slurm"
            yield context.error("SFTC451", key, message, also=("launch.launcher",))


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
        if SECRET.search(name):
            yield context.error(
                "SFTC453",
                f"launch.environment.{name}",
                f"`{name}` looks like a secret, and its value would stand in the build dir",
                help="export it in the shell that starts launch.sh; the ranks inherit it",
            )


def home_directories(context: Context) -> Iterator[Diagnostic]:
    for key, schema in leaves():
        value = context[key] if schema.get("format") == "run-time-path" else None
        if value and value.startswith("~"):
            message = f"`{value}` names a folder called `~`: a recipe's paths are not expanded"
            help = "write it relative to the folder where launch.sh is started, or absolute"
            yield context.warning("SFTC454", key, message, help=help)


RULES = (slurm_keys, device, secrets, home_directories)
