"""One micro-batch, on the device and cut for this rank."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from megatron.core import mpu

from .errors import UserError
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

    Other tensors of a sample are in the batch under their names: those that are [b, s] are cut like the tokens, the
    others are as they are. UserError if a dataset of the user's own lacks one of the four.
    """
    rows = dict(next(data_iterator))
    if missing := [key for key in (*KEYS, *(["cu_seqlens"] if packed else ())) if key not in rows]:
        raise UserError(f"the samples have no `{missing[0]}`, they have {', '.join(rows)}", help="see docs/hooks.md")
    lengths, cu_seqlens = rows.pop("length", None), rows.pop("cu_seqlens", None)
    along = [key for key, tensor in rows.items() if tensor.shape == rows["tokens"].shape]
    device = torch.cuda.current_device()
    # Cut on the GPU: only what lies in the loader's pinned memory goes there while the host goes on.
    batch: dict[str, Any] = {key: tensor.to(device, non_blocking=True) for key, tensor in rows.items()}
    if longest is not None and lengths is not None:
        end = -(-max(int(lengths.max()), 1) // longest) * longest
        batch |= {key: batch[key][:, :end].contiguous() for key in along}
    if packed:
        assert cu_seqlens is not None
        borders = segments(cu_seqlens[0])
        held = own_positions(borders, *_place()) if context_parallel else None
        batch["packed_seq_params"] = sequence_params(borders, device, held)
        if held is not None:
            chosen = held.to(device, non_blocking=True)
            batch |= {key: batch[key].index_select(1, chosen) for key in along}
    elif context_parallel:
        batch |= {key: own_slices(batch[key], *_place()) for key in along}
    batch["attention_mask"] = None
    return batch


def _place() -> tuple[int, int]:
    return mpu.get_context_parallel_rank(), mpu.get_context_parallel_world_size()
