"""CUDA or the CPU: what the recipe allows and what the machine has."""

import json
import os
from importlib.resources import files
from typing import Literal

from .errors import UserError

Device = Literal["cuda", "cpu"]
SLACK = 0.95  # torch sees a little less than the driver reports


def choose(asked: str) -> Device:
    """The device for `launch.device`: cuda, cpu or auto. UserError for `cuda` on a machine where torch finds none.

    Imports torch. `cpu` hides the GPUs from it, if it has not looked yet.
    """
    if asked == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise UserError(
            f"`launch.device: cuda` and torch {torch.__version__} finds no GPU here",
            help="check `nvidia-smi` and that torch was built for CUDA, or set `launch.device: auto`",
        )
    return "cpu"


def memory_of(hardware: str) -> int:
    """Bytes that a device of `launch.hardware` has."""
    table = json.loads((files("sftc.schema") / "hardware.json").read_text(encoding="utf-8"))
    return int(table["devices"][hardware]["memory"])


def require_memory(hardware: str | None) -> None:
    """UserError if the GPU of this rank has less memory than `launch.hardware` says, which the recipe was sized for."""
    if hardware is None:
        return
    import torch

    wanted = memory_of(hardware)
    found = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if found < SLACK * wanted:
        raise UserError(
            f"`{torch.cuda.get_device_name()}` has {found / 2**30:.1f} GiB of memory, and the recipe is made for "
            f"`launch.hardware: {hardware}` ({wanted / 2**30:.1f} GiB)",
            help="run it where it was made for, or name this device and see `sftc estimate` for what fits",
        )
