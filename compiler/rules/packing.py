"""Several rows in one sample, or one row and padding."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

PACKING, PADDING = "data.packing", "data.padding"
MICRO, EXPERTS = "train.micro_batch_size", "parallel.expert_model_parallel_size"


def one_pack_at_a_time(context: Context) -> Iterator[Diagnostic]:
    if context[PACKING] and context[MICRO] > 1:
        message = f"packs go through the model one at a time, and micro_batch_size is {context[MICRO]}"
        yield context.error("SFTC436", MICRO, message, also=(PACKING,), help="write `micro_batch_size: 1`")


def padding(context: Context) -> Iterator[Diagnostic]:
    if not context.stated(PADDING):
        return
    if context[PACKING]:
        message = f"`{PADDING}` is about rows that are not packed"
        yield context.error("SFTC439", PADDING, message, also=(PACKING,), help="leave it out")
    elif context[PADDING] == "longest" and context[EXPERTS] > 1:
        message = "micro-batches of different lengths do not go through experts that ranks share"
        yield context.error("SFTC439", PADDING, message, also=(EXPERTS,), help="write `padding: max_length`")


RULES = (one_pack_at_a_time, padding)
