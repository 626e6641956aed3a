"""One micro-batch, on the device and cut for this rank."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from megatron.core import mpu

from .packed import own_positions, segments, sequence_params
from .zigzag import own_slices

KEYS = ("tokens", "labels", "loss_mask", "position_ids")


def next_batch(
    data_iterator: Iterator[Mapping[str, torch.Tensor]],
    context_parallel: bool = False,
    packed: bool = False,
    longest: int | None = None,
) -> dict[str, Any]:
    """The next micro-batch: tokens, labels, position_ids [b, s] int64; loss_mask [b, s] float32; attention_mask None.

    No mask matrix is built, attention is causal in the kernel. Every rank reads the same memory-mapped rows, so
    tensor-parallel ranks and pipeline stages need no broadcast. With `context_parallel`, s is this rank's share:
    the two slices of the sequence that `zigzag` gives it. With `packed`, b is 1, those slices are of each document,
    and `packed_seq_params` says where the documents of the whole sequence end. With `longest`, s is the length of the
    longest row, rounded up to a multiple of that number.
    """
    rows = next(data_iterator)
    if longest is not None:
        own, whole = int(rows["length"].max()), rows["tokens"].shape[1]
        end = min(-(-max(own, 1) // longest) * longest, whole)
        rows = {key: rows[key][:, :end] for key in KEYS}
    device = torch.cuda.current_device()
    params = None
    if packed:
        (cu_seqlens,) = rows["cu_seqlens"]
        borders = segments(cu_seqlens)
        params = sequence_params(borders, device)
        if context_parallel:
            rows = {key: rows[key][:, own_positions(borders, *_place())] for key in KEYS}
    batch: dict[str, Any] = {key: rows[key].to(device, non_blocking=True) for key in KEYS}
    if context_parallel and not packed:
        batch = {key: own_slices(tensor, *_place()) for key, tensor in batch.items()}
    batch["attention_mask"] = None
    if packed:
        batch["packed_seq_params"] = params
    return batch


def _place() -> tuple[int, int]:
    return mpu.get_context_parallel_rank(), mpu.get_context_parallel_world_size()
