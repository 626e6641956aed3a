"""Writing a checkpoint through Megatron: what the disk refuses is no bug of anybody's, and is said in one sentence."""

import shutil
from collections.abc import Callable
from typing import Any

from ..errors import UserError

# As the C library says them: writers are processes of their own, whose errors arrive as text.
REFUSALS = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Permission denied",
    "File too large",
)
# What says that a write failed, and not how: torch's writer where it noticed, and Megatron's workers a class.
TORN_WRITES = ("inline_container", "<class 'OSError'>")
NEARLY_FULL = 0.01  # of a disk


def saving(run: Callable[[], Any], folder: str, iteration: int) -> Any:
    """What `run()` returns, which may write into `folder`. UserError if the disk does not let it."""
    try:
        return run()
    except BaseException as error:  # torch's CheckpointException is no Exception
        if (reason := _disk_problem(error, folder)) is None:
            raise
        raise UserError(
            f"the checkpoint of iteration {iteration} cannot be written to `{folder}`: {reason}",
            help="the one before it is whole: mend this, and launch again to go on from there",
        ) from error


def _disk_problem(error: BaseException, folder: str) -> str | None:
    """What the disk of `folder` has to do with `error`, if it has."""
    told = ""
    seen: BaseException | None = error
    while seen is not None:
        told, seen = f"{told}\n{seen}", seen.__cause__ or seen.__context__
    if (reason := next((reason for reason in REFUSALS if reason in told), None)) is not None:
        return reason
    if not any(mark in told for mark in TORN_WRITES):
        return None
    usage = shutil.disk_usage(folder)
    if usage.free < NEARLY_FULL * usage.total:
        return f"the disk is full, {usage.free:,} of {usage.total:,} bytes are free"
    return "a write was cut short"
