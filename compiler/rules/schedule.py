"""Batch sizes, the learning-rate schedule and recomputation."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

ITERS, WARMUP, DECAY = "train.train_iters", "train.lr_warmup_iters", "train.lr_decay_iters"


def batch(context: Context) -> Iterator[Diagnostic]:
    size, micro = context["train.global_batch_size"], context["train.micro_batch_size"]
    replicas = context["parallel.data_parallel_size"]
    if size % (micro * replicas):
        message = (
            f"global_batch_size ({size}) is not a multiple of "
            f"micro_batch_size({micro}) * DP({replicas}) = {micro * replicas}"
        )
        yield context.error("SFTC421", "train.global_batch_size", message, also=("train.micro_batch_size",))


def warmup(context: Context) -> Iterator[Diagnostic]:
    iters, decay, run = context[WARMUP], context[DECAY], context[ITERS]
    if run <= iters < decay:
        message = f"the warm-up ({iters} iterations) does not end before the run does ({run})"
        yield context.error("SFTC422", WARMUP, message, also=(ITERS, DECAY), help=f"at most {run - 1}")
    elif iters >= decay:
        message = f"the warm-up ({iters} iterations) does not end before the schedule does ({decay})"
        yield context.error("SFTC422", WARMUP, message, also=(ITERS, DECAY), help=f"at most {decay - 1}")


def decay(context: Context) -> Iterator[Diagnostic]:
    end, iters = context[DECAY], context[ITERS]
    if end < iters and context["train.lr_decay_style"] != "constant":
        message = f"the schedule ends at iteration {end} of {iters}: the rest trains at min_lr"
        yield context.warning("SFTC423", DECAY, message, also=(ITERS, "train.min_lr"))
    elif end > iters and context["train.lr_decay_style"] in ("linear", "cosine"):
        message = f"the run ends at iteration {iters} of the schedule's {end}: the learning rate does not reach min_lr"
        yield context.warning("SFTC423", DECAY, message, also=(ITERS, "train.min_lr"))


def final_rate(context: Context) -> Iterator[Diagnostic]:
    low, high = context["train.min_lr"], context["train.lr"]
    if low > high:
        message = f"min_lr ({low}) is larger than lr ({high})"
        yield context.error("SFTC424", "train.min_lr", message, also=("train.lr",))


def recompute(context: Context) -> Iterator[Diagnostic]:
    wants = context["train.recompute_granularity"] == "full"
    for key in ("train.recompute_method", "train.recompute_num_layers"):
        if wants and context[key] is None:
            message = f"recompute_granularity: full needs `{key}`"
            yield context.error("SFTC425", "train.recompute_granularity", message)
        elif not wants and context.stated(key):
            message = f"`{key}` is read only with recompute_granularity: full"
            yield context.error("SFTC425", key, message)


RULES = (batch, warmup, decay, final_rate, recompute)
