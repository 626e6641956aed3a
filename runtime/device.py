"""CUDA or the CPU: what the recipe allows and what the machine has."""

import os
from typing import Literal

from .errors import UserError

Device = Literal["cuda", "cpu"]


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
