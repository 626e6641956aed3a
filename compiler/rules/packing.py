"""Several rows in one sample."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

PACKING, MICRO = "data.packing", "train.micro_batch_size"


def one_pack_at_a_time(context: Context) -> Iterator[Diagnostic]:
    if context[PACKING] and context[MICRO] > 1:
        message = f"packs go through the model one at a time, and micro_batch_size is {context[MICRO]}"
        yield context.error("SFTC436", MICRO, message, also=(PACKING,), help="write `micro_batch_size: 1`")


RULES = (one_pack_at_a_time,)
