"""Packed sequences: what Megatron is told about them, attention that keeps their documents apart, and their cuts.

A pack is one sequence [t] of documents, which `cu_seqlens` int32 [n + 1] cuts at 0, the ends of the documents and t.
"""

import inspect
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch

from .zigzag import own_slices

LARGEST_HEAD, OLDEST = 256, (8, 0)  # of FlashAttention


def segments(cu_seqlens: torch.Tensor) -> torch.Tensor:
    """`cu_seqlens` of one sample, whose end may be repeated, without the empty segments."""
    borders: torch.Tensor = torch.unique_consecutive(cu_seqlens)
    return borders


def sequence_params(cu_seqlens: torch.Tensor, device: Any, held: torch.Tensor | None = None) -> Any:
    """Megatron's PackedSeqParams. cu_seqlens: on the CPU, so that no layer has to wait for a GPU to say where segments
    end; held: the positions of the pack that this context-parallel rank holds, None for all.

    Megatron lets positions begin anew in each segment only if it is told the true longest one: with as many as the
    pack has, its rotary embedding counts through the whole pack.
    """
    from megatron.core.packed_seq_params import PackedSeqParams

    lengths = cu_seqlens.diff()
    longest = int(lengths.max())
    on_device: Any = cu_seqlens.to(device, non_blocking=True)
    places = torch.arange(int(cu_seqlens[-1])) - cu_seqlens[:-1].long().repeat_interleave(lengths)
    on_device.places = (places if held is None else places[held]).to(device, non_blocking=True)
    params = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=on_device,
        cu_seqlens_kv=on_device,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
    params.borders = cu_seqlens.tolist()
    return params


def places_of(cu_seqlens: torch.Tensor) -> torch.Tensor | None:
    """The position in its segment of each token that this rank holds, int64; None for a tensor that is not of
    `sequence_params`.
    """
    return getattr(cu_seqlens, "places", None)


def borders_of(params: Any) -> list[int]:
    """Where the segments of a PackedSeqParams begin, and where the last one ends."""
    known: list[int] | None = getattr(params, "borders", None)
    return params.cu_seqlens_q.tolist() if known is None else known


def own_positions(cu_seqlens: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """Which positions of a pack context-parallel `rank` of `size` holds: int64 [t / size], two slices per segment.

    ValueError for a segment that is no multiple of 2 * size.
    """
    borders = cu_seqlens.tolist()
    positions = torch.arange(borders[-1]).unsqueeze(0)
    held = [own_slices(positions[:, a:b], rank, size) for a, b in pairwise(borders)]
    return torch.cat(held, dim=1).squeeze(0)


def split_segments(tensors: Sequence[torch.Tensor], borders: Sequence[int], share: int = 1) -> Any:
    """The segments of each tensor [t / share, ...] side by side, as tuples of [s, 1, ...]; `share` is CP's size."""
    lengths = [(end - start) // share for start, end in pairwise(borders)]
    return zip(*(torch.split(tensor.unsqueeze(1), lengths) for tensor in tensors), strict=True)


def fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, params: Any, scale: float | None
) -> torch.Tensor:
    """torch's kernel for packs on a GPU: query [t, heads, d], key and value [t, groups, d] → [t, heads, d]."""
    from torch.nn.attention.varlen import varlen_attn

    borders, longest = params.cu_seqlens_q, params.max_seqlen_q
    out = varlen_attn(
        query,
        key,
        value,
        borders,
        borders,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, torch.Tensor)  # a pair only if asked for
    return out


def can_fuse(query: torch.Tensor, value: torch.Tensor, dropout: float) -> bool:
    """Whether `fused_attention` takes it: on a GPU of compute capability 8.0 or newer, in half precision, without
    dropout, in a torch with the kernel, which wants heads of one size and pads none of them.
    """
    size = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and size == value.shape[-1]  # not so in multi-latent attention
        and size % 8 == 0
        and size <= LARGEST_HEAD
        and not dropout
        and _has_kernel()
        and torch.cuda.get_device_capability(query.device) >= OLDEST
    )


@cache
def _has_kernel() -> bool:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    # its first releases have neither grouped queries nor a window
    return {"enable_gqa", "window_size", "scale"} <= set(inspect.signature(varlen_attn).parameters)
