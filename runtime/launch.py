"""What Megatron is told: the reviewed arguments, then those that only this machine and this start can know."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .bundle import Bundle
from .checkpoint.start import Start
from .device import Device
from .megatron import read_argument_file

SUPPLEMENT = "megatron.cpu.args"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """`iterations` of the global batch size each; `derived` if the recipe left the number to the data."""

    iterations: int
    derived: bool
    line: str


def evaluation(bundle: Bundle, pointer: Mapping[str, Any]) -> Evaluation:
    """`eval.eval_iters`, or as many iterations as see every validation row once (the last ones may hold fillers)."""
    stated = bundle.value("eval.eval_iters")
    if bundle.value("data.valid_data_path") is None:
        return Evaluation(iterations=0, derived=True, line="no validation data, so no evaluation")
    if stated is not None:
        return Evaluation(iterations=int(stated), derived=False, line="")
    rows, batch = int(pointer["valid_samples"]), int(bundle.value("train.global_batch_size"))
    iterations = math.ceil(rows / batch)
    line = f"each evaluation sees all {rows} validation samples: ceil({rows} / {batch}) = {iterations} iterations"
    return Evaluation(iterations=iterations, derived=True, line=line)


def arguments_of(bundle: Bundle, start: Start, device: Device, validation: Evaluation) -> list[str]:
    """Later options win: the file, its supplement for the CPU, the start, the number of evaluation iterations."""
    arguments = read_argument_file(bundle.path / "megatron.args")
    if device == "cpu" and SUPPLEMENT in bundle.files:  # another file of that name was reviewed by nobody
        arguments += read_argument_file(bundle.path / SUPPLEMENT)
    arguments += start.arguments
    if validation.derived:
        arguments += ["--eval-iters", str(validation.iterations)]
    return arguments
