"""Where the weights come from, and what is kept of the run."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

LOAD, FINETUNE = "model.load", "checkpoint.finetune"
HUGGING_FACE = "hf:"


def first_weights(context: Context) -> Iterator[Diagnostic]:
    loads, random = context[LOAD] is not None, context["model.init"] == "random"
    if not loads and not random:
        yield context.error(
            "SFTC441",
            LOAD,
            "nothing says where the first weights come from",
            help="set `model.load` to a checkpoint, or say `init: random` under `model`",
        )
    elif loads and random:
        message = "the weights cannot be both loaded and random"
        yield context.error("SFTC441", "model.init", message, also=(LOAD,), help="keep one of the two")


def start_policy(context: Context) -> Iterator[Diagnostic]:
    for key in (FINETUNE, "checkpoint.no_load_optim", "checkpoint.no_load_rng"):
        if context.stated(key) and context[LOAD] is None:
            message = f"`{key}` is about the checkpoint of `model.load`, which is not set"
            yield context.error("SFTC442", key, message, help="set `model.load`, or leave the line out")
        elif context.stated(key) and key != FINETUNE and context[FINETUNE] and context[key] is False:
            message = f"`{key}: false` asks for states that a fine-tuning start leaves behind"
            yield context.error(
                "SFTC442", key, message, also=(FINETUNE,), help="say `checkpoint.finetune: false` to continue a run"
            )


def hugging_face(context: Context) -> Iterator[Diagnostic]:
    load = context[LOAD]
    if load is None or not load.startswith(HUGGING_FACE):
        return
    if load == HUGGING_FACE:
        yield context.error("SFTC444", LOAD, "`hf:` names no directory", help="write `hf:DIR`")
    elif not context[FINETUNE]:
        message = "Hugging Face weights carry no optimizer state that a run could continue with"
        yield context.error("SFTC444", FINETUNE, message, also=(LOAD,), help="leave out `checkpoint.finetune: false`")


def saving(context: Context) -> Iterator[Diagnostic]:
    interval, iters = context["checkpoint.save_interval"], context["train.train_iters"]
    if interval is not None and iters is not None and interval > iters:
        message = f"save_interval ({interval}) is longer than the run ({iters} iterations): saved only at the end"
        yield context.warning("SFTC443", "checkpoint.save_interval", message, also=("train.train_iters",))


RULES = (first_weights, start_policy, hugging_face, saving)
