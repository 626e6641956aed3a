"""The GPUs of this node against the plan. Finds out without torch where there are none."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..device import SLACK, memory_of
from ..errors import UserError
from .finding import Findings
from .room import size

LIMIT = 40.0  # seconds; a cold start of torch on a network file system takes long
USED = 0.10  # of a GPU's memory: what a driver takes is less
# What drivers make: NVIDIA's, AMD's, and WSL's.
NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def devices(bundle: Bundle, found: Findings) -> None:
    """Adds the fact `device`: `cuda` or `cpu`."""
    asked = bundle.value("launch.device")
    if asked == "cpu" or (asked == "auto" and not may_have_gpus()):
        why = "`launch.device: cpu`" if asked == "cpu" else "no GPU here, `launch.device: auto`"
        found.facts["device"] = "cpu"
        found.add("devices", "ok", f"the ranks run on the CPU ({why})")
        return
    count = int(bundle.value("launch.nproc_per_node"))
    judge(look(count), count, asked, bundle.value("launch.hardware"), found)


def may_have_gpus() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(Path(name).exists() for name in NODES)


def look(count: int) -> Sequence[Mapping[str, Any]]:
    """See gpus.look. UserError if torch cannot say."""
    command = [sys.executable, "-m", "sftc.runtime.preflight.gpus", str(count)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"torch has not found the GPUs within {LIMIT:g} s", "see `nvidia-smi`, or how fast torch is loaded here"
        ) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise UserError(f"torch cannot look for GPUs: {said}", "`python -c 'import torch'` shows the whole error")
    gpus: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return gpus


def judge(gpus: Sequence[Mapping[str, Any]], count: int, asked: str, hardware: str | None, found: Findings) -> None:
    """`count` of the GPUs are used, one for each rank of a node."""
    if not gpus and asked == "auto":
        found.facts["device"] = "cpu"
        found.add("devices", "ok", "the ranks run on the CPU (torch finds no GPU here, `launch.device: auto`)")
        return
    found.facts["device"] = "cuda"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = f", CUDA_VISIBLE_DEVICES is {visible}" if visible is not None else ""
    if len(gpus) < count:
        has = f"{len(gpus)} {'GPU' if len(gpus) == 1 else 'GPUs'} here{hidden}" if gpus else "torch finds no GPU here"
        help = "see `nvidia-smi` and what the job was given, and that torch was built for CUDA"
        found.add("devices", "failed", f"{has}, and `launch.nproc_per_node` is {count}", help)
        return
    used = gpus[:count]
    for index, gpu in enumerate(used):
        if gpu["problem"]:
            help = "another process may hold it, or it is broken: see `nvidia-smi`"
            found.add("devices", "failed", f"GPU {index} ({gpu['name']}) cannot be used: {gpu['problem']}", help)
        elif gpu["free"] is not None and gpu["free"] < (1 - USED) * gpu["total"]:
            taken = f"{size(gpu['total'] - gpu['free'])} of {size(gpu['total'])}"
            found.add("devices", "warning", f"GPU {index}: {taken} are in use already", "see `nvidia-smi` for by whom")
        if hardware is not None:
            _compare(index, gpu, hardware, found)
    kinds = dict.fromkeys(f"{gpu['name']}, {size(gpu['total'])}" for gpu in used)
    found.facts["GPUs"] = "; ".join(kinds)
    if not found.items:
        found.add("devices", "ok", f"{count} of {len(gpus)} GPUs: {'; '.join(kinds)}{hidden}")


def _compare(index: int, gpu: Mapping[str, Any], hardware: str, found: Findings) -> None:
    wanted = memory_of(hardware)
    made_for = f"the recipe is made for `launch.hardware: {hardware}`"
    if gpu["total"] < SLACK * wanted:
        found.add(
            "devices",
            "failed",
            f"GPU {index} ({gpu['name']}) has {size(gpu['total'])}, and {made_for} ({size(wanted)})",
            "run it where it was made for, or name this device and see `sftc estimate` for what fits",
        )
    elif not re.search(rf"\b{hardware.partition('-')[0]}\b", gpu["name"]):
        found.add(
            "devices", "warning", f"GPU {index} is a {gpu['name']}, and {made_for}", "name the device in the recipe"
        )
