"""CUDA or the CPU: what the recipe allows and what the machine has."""

import json
import os
from importlib.resources import files
from typing import Literal

from .errors import UserError

Device = Literal["cuda", "cpu"]
SLACK = 0.95  # torch sees a little less than the driver reports


def choose(asked: str) -> Device:
    """The device for `launch.device`: cuda, cpu or auto. UserError for `cuda` on a machine where torch finds none, and
    where it finds fewer than there are ranks.

    Imports torch. `cpu` hides the GPUs from it, if it has not looked yet.
    """
    if asked == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return "cpu"
    import torch

    if torch.cuda.is_available():
        if (own := own_gpu()) >= (count := torch.cuda.device_count()):
            raise UserError(
                f"rank {own} of this node has no GPU: torch finds {count} here",
                help="see `nvidia-smi`, CUDA_VISIBLE_DEVICES and `launch.nproc_per_node`",
            )
        return "cuda"
    if asked == "cuda":
        raise UserError(
            f"`launch.device: cuda` and torch {torch.__version__} finds no GPU here",
            help="check `nvidia-smi` and that torch was built for CUDA, or set `launch.device: auto`",
        )
    return "cpu"


def own_gpu() -> int:
    """The number of this rank's GPU, which Megatron makes the current one only later."""
    return int(os.environ.get("LOCAL_RANK", "0"))


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
    own = own_gpu()
    found = torch.cuda.get_device_properties(own).total_memory
    if found < SLACK * wanted:
        raise UserError(
            f"`{torch.cuda.get_device_name(own)}` has {found / 2**30:.1f} GiB of memory, and the recipe is made for "
            f"`launch.hardware: {hardware}` ({wanted / 2**30:.1f} GiB)",
            help="run it where it was made for, or name this device and see `sftc estimate` for what fits",
        )
