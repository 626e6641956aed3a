"""What Megatron is told: the reviewed arguments, then those that only this machine and this start can know."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .bundle import Bundle
from .checkpoint.start import Start
from .device import Device
from .errors import UserError
from .megatron import read_argument_file

SUPPLEMENT = "megatron.cpu.args"


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long the run is, with the options that Megatron needs besides those of its file, and a line that says so."""

    iterations: int
    arguments: tuple[str, ...] = ()
    line: str = ""


def length(bundle: Bundle, pointer: Mapping[str, Any]) -> Length:
    """`train.train_iters`, or the iterations in which `train.epochs` of the prepared samples are seen.

    UserError if the warm-up would be longer than that.
    """
    stated = bundle.value("train.train_iters")
    if stated is not None:
        return Length(iterations=int(stated))
    epochs, batch = float(bundle.value("train.epochs")), int(bundle.value("train.global_batch_size"))
    samples = int(pointer["train_samples"])
    # A product such as 1.1 * 10 is a little more than it should be.
    needed = round(epochs * samples, 6)
    iterations = math.ceil(needed / batch)
    warmup = int(bundle.value("train.lr_warmup_iters"))
    if warmup >= (bundle.value("train.lr_decay_iters") or iterations):
        raise UserError(
            f"the warm-up ({warmup} iterations) does not end before the schedule does: {epochs:g} "
            f"{'epoch is' if epochs == 1 else 'epochs are'} {iterations} iterations",
            help="set `train.lr_warmup_fraction`, a share of them, in the place of `train.lr_warmup_iters`",
        )
    arguments = ["--train-iters", str(iterations)]
    if bundle.value("checkpoint.save_interval") is None:  # only after the last one; Megatron wants a number
        arguments += ["--save-interval", str(iterations)]
    line = (
        f"{epochs:g} {'epoch' if epochs == 1 else 'epochs'} of {samples:,} samples in batches of {batch:,}: "
        f"ceil({needed:,.10g} / {batch:,}) = {_iterations(iterations)}"
    )
    return Length(iterations=iterations, arguments=tuple(arguments), line=line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """`iterations` of the global batch size each; `derived` if the recipe left the number to the data."""

    iterations: int
    derived: bool
    line: str


def evaluation(bundle: Bundle, pointer: Mapping[str, Any]) -> Evaluation:
    """`eval.eval_iters`, or as many iterations as see every validation row once (the last ones may hold fillers)."""
    stated = bundle.value("eval.eval_iters")
    named = bundle.value("data.valid_data_path") is not None or bundle.value("data.valid_fraction") is not None
    if not named and (bundle.value("hooks.datasets_provider") is None or bundle.value("eval.eval_interval") is None):
        return Evaluation(iterations=0, derived=True, line="no validation data, so no evaluation")
    if stated is not None:
        return Evaluation(iterations=int(stated), derived=False, line="")
    rows, batch = int(pointer["valid_samples"]), int(bundle.value("train.global_batch_size"))
    iterations = math.ceil(rows / batch)
    line = f"each evaluation sees all {rows} validation samples: ceil({rows} / {batch}) = {_iterations(iterations)}"
    return Evaluation(iterations=iterations, derived=True, line=line)


def _iterations(count: int) -> str:
    return f"{count:,} {'iteration' if count == 1 else 'iterations'}"


def arguments_of(bundle: Bundle, start: Start, device: Device, run: Length, validation: Evaluation) -> list[str]:
    """Later options win: the file, the run's length, its supplement for the CPU, the start, the number of evaluation
    iterations.
    """
    arguments = [*read_argument_file(bundle.path / "megatron.args"), *run.arguments]
    if device == "cpu" and SUPPLEMENT in bundle.files:  # another file of that name was reviewed by nobody
        arguments += read_argument_file(bundle.path / SUPPLEMENT)
    arguments += start.arguments
    if validation.derived:
        arguments += ["--eval-iters", str(validation.iterations)]
    return arguments
