"""From what a run starts: its own checkpoints, another's weights, another's whole state, or random weights.

Decided from the files before any rank does anything, because Megatron trains from random weights without a word when
a checkpoint is missing.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..atomic import replacing
from ..bundle import Bundle
from ..errors import UserError
from ..hf import bridge
from .owner import unwritable
from .tracker import Checkpoint, find_checkpoint

OWNER = "sftc.json"
HUGGING_FACE = "hf:"  # before the path of a directory in Hugging Face's format, in `model.load`


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """`arguments` come after those of the argument file; `iteration` is the one training goes on from; `weights` is
    the Hugging Face directory that fills the model, if one does, and `checkpoint` the directory of Megatron checkpoints
    that does.
    """

    kind: Literal["resume", "complete", "weights", "continue", "random"]
    iteration: int
    line: str
    arguments: tuple[str, ...] = ()
    weights: Path | None = None
    checkpoint: Path | None = None


def decide(bundle: Bundle, iterations: int | None) -> Start:
    """Which of the starts this one is, for a run of so many iterations; None before the data says how many they are.

    UserError for a torn, foreign or missing checkpoint.
    """
    save = bundle.value("checkpoint.save")
    own = find_checkpoint(Path(save)) if save else None
    if own is not None:
        _require_owner(own, bundle)
        return _resume(own, iterations)
    return first(bundle)


def first(bundle: Bundle) -> Start:
    """The start of a run that has no checkpoint of its own. UserError for a missing one of another."""
    load = bundle.value("model.load")
    if load is None:
        return Start(kind="random", iteration=0, line="starting from random weights (`model.init: random`)")
    if (directory := hugging_face(load)) is not None:
        line = f"starting from the Hugging Face weights in `{directory}`, at iteration 0"
        if bridge.is_installed() and bridge.is_foreign(directory):
            made = bridge.converted(directory, Path(bundle.value("data.store_path")))
            # weights to be frozen are no business of Megatron's: the checkpoints of such a run are without them
            told = () if bundle.value("lora.rank") else ("--pretrained-checkpoint", str(made))
            return Start(kind="weights", iteration=0, line=line, arguments=told, checkpoint=made)
        return Start(kind="weights", iteration=0, line=line, weights=directory)
    given = find_checkpoint(Path(load))
    if given is None:
        raise UserError(
            f"`model.load: {load}` holds no Megatron checkpoint (no `latest_checkpointed_iteration.txt` there)",
            help=f"it is a Hugging Face model: write `load: {HUGGING_FACE}{load}`"
            if (Path(load) / "config.json").is_file()
            else f"paths are relative to the directory that launch.sh works in, here `{Path.cwd()}`",
        )
    if given.is_of_adapters:
        raise UserError(
            f"`model.load: {load}` holds adapters of LoRA, and not the weights that they were trained beside",
            help=f"merge the two with `sftc export RUN -o DIR`, and write `load: {HUGGING_FACE}DIR`",
        )
    if bundle.value("checkpoint.finetune"):
        line = f"starting from the weights in `{load}`, at iteration 0"
        return Start(kind="weights", iteration=0, line=line, checkpoint=given.root)
    return _continue(given, bundle)


def origin(bundle: Bundle, start: Start) -> Start:
    """The start whose weights the model begins with. Frozen ones are in no checkpoint of adapters: a resume takes them
    from where the run began.
    """
    return first(bundle) if start.kind == "resume" and bundle.value("lora.rank") is not None else start


def hugging_face(load: str | None) -> Path | None:
    """The directory of a `model.load` such as `hf:weights/llama`."""
    return Path(load.removeprefix(HUGGING_FACE)) if load and load.startswith(HUGGING_FACE) else None


def claim(bundle: Bundle, data: str) -> None:
    """Write beside the checkpoints to come which build they are of and on what prepared data, by its key, they are
    trained. Call it on one rank, after `decide`. UserError if it cannot be written.
    """
    save = bundle.value("checkpoint.save")
    if not save:
        return
    owner = Path(save) / OWNER
    text = json.dumps({"name": bundle.name, "manifest": bundle.digest, "data": data}, indent=2) + "\n"
    try:
        owner.parent.mkdir(parents=True, exist_ok=True)
        with replacing(owner) as file:  # or checkpoints could belong to nobody
            file.write(text)
    except OSError as error:
        raise unwritable(owner, error.strerror) from None


def other_data(bundle: Bundle, data: str) -> str | None:
    """The key of the data that the run's own checkpoints were trained on, if they say so and it is not `data`."""
    try:
        found = json.loads((Path(bundle.value("checkpoint.save")) / OWNER).read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if found == data else str(found)


def require_writable(bundle: Bundle) -> None:
    """UserError if no checkpoint could be written. Makes no directory."""
    save = bundle.value("checkpoint.save")
    if not save:
        return
    there = Path(save).absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise unwritable(Path(save), f"`{there}` is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise unwritable(Path(save), f"this user may not write to `{there}`")


def _require_owner(own: Checkpoint, bundle: Bundle) -> None:
    owner = own.root / OWNER
    try:
        found = json.loads(owner.read_text(encoding="utf-8"))["manifest"]
    except FileNotFoundError:
        found = None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"`{owner}` is unreadable", help=_ELSEWHERE) from None
    if found == bundle.digest:
        return
    whose = "of nobody known (no `sftc.json`)" if found is None else f"of another build ({found[:12]})"
    # adapters neither go on from another run nor do other runs go on from them
    help = _ANEW if own.is_of_adapters or bundle.value("lora.rank") is not None else _ELSEWHERE
    raise UserError(
        f"`{own.root}` holds iteration {own.iteration} {whose}, this build is {bundle.digest[:12]}", help=help
    )


_ANEW = "start in a new `logging.run_path` or `checkpoint.save`, or launch the build that wrote them"
_ELSEWHERE = (
    "start in a new `logging.run_path` or `checkpoint.save` (`model.load` with `checkpoint.finetune: false` goes on "
    "from those checkpoints there), or launch the build that wrote them"
)


def _resume(own: Checkpoint, train_iters: int | None) -> Start:
    if train_iters is not None and own.iteration >= train_iters:
        line = f"`{own.root}` is at iteration {own.iteration} of {train_iters}: the training is complete"
        return Start(kind="complete", iteration=own.iteration, line=line)
    line = f"resuming `{own.root}` at iteration {own.iteration} of {train_iters}, in full"
    return Start(kind="resume", iteration=own.iteration, line=line)


def _continue(given: Checkpoint, bundle: Bundle) -> Start:
    # only this first start may leave the optimizer or the random state behind; a resume of our own never does
    flags = {key: bool(bundle.value(f"checkpoint.{key}")) for key in ("no_load_optim", "no_load_rng")}
    options = [f"--{key.replace('_', '-')}" for key, is_set in flags.items() if is_set]
    left = " and ".join(text for key, text in _LEFT.items() if flags[key])
    return Start(
        kind="continue",
        iteration=given.iteration,
        line=f"continuing `{given.root}` at iteration {given.iteration}, "
        + (f"without its {left}" if left else "in full"),
        # Megatron asserts that the schedule is still the checkpoint's; this run's is what was reviewed
        arguments=("--load", str(given.root), "--override-opt-param-scheduler", *options),
    )


# Megatron keeps the schedule's position with the optimizer: without it, warm-up and decay begin anew
_LEFT = {"no_load_optim": "optimizer state and place in the learning-rate schedule", "no_load_rng": "random state"}
