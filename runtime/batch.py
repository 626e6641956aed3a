"""One micro-batch, on the device and cut for this rank."""

from collections.abc import Iterator, Mapping

import torch
from megatron.core import mpu

from .zigzag import own_slices

KEYS = ("tokens", "labels", "loss_mask", "position_ids")


def next_batch(
    data_iterator: Iterator[Mapping[str, torch.Tensor]], context_parallel: bool = False
) -> dict[str, torch.Tensor | None]:
    """The next micro-batch: tokens, labels, position_ids [b, s] int64; loss_mask [b, s] float32; attention_mask None.

    No mask matrix is built, attention is causal in the kernel. Every rank reads the same memory-mapped rows, so
    tensor-parallel ranks and pipeline stages need no broadcast. With `context_parallel`, s is this rank's share:
    the two slices of the sequence that `zigzag` gives it.
    """
    rows = next(data_iterator)
    device = torch.cuda.current_device()
    batch: dict[str, torch.Tensor | None] = {key: rows[key].to(device, non_blocking=True) for key in KEYS}
    if context_parallel:
        batch = {key: _own_slices(tensor) for key, tensor in batch.items() if tensor is not None}
    batch["attention_mask"] = None
    return batch


def _own_slices(tensor: torch.Tensor) -> torch.Tensor:
    return own_slices(tensor, mpu.get_context_parallel_rank(), mpu.get_context_parallel_world_size())
