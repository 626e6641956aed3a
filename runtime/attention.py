"""Core attention out of torch alone: causal, grouped queries, packed sequences, context parallel.

Megatron's own local attention builds the whole score matrix, refuses context parallelism, and on a GPU is about four
times slower than torch's scaled_dot_product_attention, which this module calls.
"""

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel

from .errors import UserError
from .packed import borders_of, can_fuse, fused_attention, split_segments
from .zigzag import chunks_of, in_order


class GatherSequence(torch.autograd.Function):
    """All-gather over a process group: [s, ...] → [n, s, ...]. Backward sums every rank's gradient for its share."""

    @staticmethod
    def forward(ctx: Any, share: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        shares = [torch.empty_like(share) for _ in range(group.size())]
        torch.distributed.all_gather(shares, share.contiguous(), group=group)
        return torch.stack(shares)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        # gloo has no reduce_scatter; the all_reduce moves n times as much, for keys and values of one layer
        whole = grads[0].contiguous()
        torch.distributed.all_reduce(whole, group=ctx.group)
        return whole[ctx.group.rank()], None


class TorchAttention(torch.nn.Module):
    """Megatron's core-attention interface over scaled_dot_product_attention. Holds no parameters."""

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        pg_collection: Any = None,
        **_: Any,
    ) -> None:
        super().__init__()
        if attn_mask_type.name != "causal" or attention_type != "self":
            raise UserError(
                f"torch-native attention is causal self-attention, layer {layer_number} asks for "
                f"{attn_mask_type.name} {attention_type}-attention",
                help="set `model.transformer_impl: transformer_engine`",
            )
        self.scale = softmax_scale
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.sequence_parallel = config.sequence_parallel
        self.cp_group = pg_collection.cp if config.context_parallel_size > 1 else None

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,  # noqa: ARG002 - Megatron passes it by position
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        """query [s, b, heads, d], key and value [s, b, groups, d] → [s, b, heads·d]; s is this rank's share.

        With `packed_seq_params` there is no b, and attention stays within the segments. The masks that Megatron passes
        along are not looked at: causality is decided here.
        """
        if attention_bias is not None:
            raise ValueError("torch-native attention takes no attention bias")
        dropout = self.dropout if self.training else 0.0
        with self._random_numbers(dropout):
            if packed_seq_params is not None:
                return self._packed(query, key, value, packed_seq_params, dropout).flatten(1)
            if self.cp_group is None:
                out = attend(query, key, value, dropout=dropout, scale=self.scale)
            else:
                whole = in_order(GatherSequence.apply(torch.cat([key, value], dim=-1), self.cp_group))
                key, value = torch.split(whole, [key.shape[-1], value.shape[-1]], dim=-1)
                place = (self.cp_group.rank(), self.cp_group.size())
                out = attend_share(query, key, value, *place, dropout=dropout, scale=self.scale)
        return out.flatten(2)

    def _packed(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, params: Any, dropout: float
    ) -> torch.Tensor:
        """query [s, heads, d], key and value [s, groups, d] → [s, heads, d]; see `packed`."""
        if self.cp_group is None:
            if can_fuse(query, value, dropout):
                return fused_attention(query, key, value, params, self.scale)
            parts = [
                attend(*segment, dropout=dropout, scale=self.scale)
                for segment in split_segments((query, key, value), borders_of(params))
            ]
        else:
            shares = GatherSequence.apply(torch.cat([key, value], dim=-1), self.cp_group)
            rank, size = self.cp_group.rank(), self.cp_group.size()
            parts = []
            for held, *others in split_segments((query, *shares), borders_of(params), share=size):
                whole = in_order(torch.stack(others))
                keys, values = torch.split(whole, [key.shape[-1], value.shape[-1]], dim=-1)
                parts.append(attend_share(held, keys, values, rank, size, dropout=dropout, scale=self.scale))
        return torch.cat(parts).squeeze(1)

    def _random_numbers(self, dropout: float) -> Any:
        # heads are split over tensor-parallel ranks, which must not all drop the same entries; under sequence
        # parallelism Megatron's default generator differs by rank already (its own attention does the same)
        return (
            tensor_parallel.get_cuda_rng_tracker().fork() if dropout and not self.sequence_parallel else nullcontext()
        )


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, dropout: float = 0.0, scale: float | None = None
) -> torch.Tensor:
    """Causal attention; the last query is aligned with the last key. [s, b, heads, d] x [t, b, groups, d], s <= t."""
    q, k, v = by_heads([tensor.permute(1, 2, 0, 3) for tensor in (query, key, value)])
    queries, keys = q.shape[2], k.shape[2]
    mask, is_causal = None, False
    if queries == keys:  # a branch: torch's compiler may know lengths as symbols, and the kernel takes no such answer
        is_causal = True
    elif queries != 1:  # the last query alone sees everything
        mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    if mask is not None or (q.is_cuda and q.element_size() > 2):
        # no CUDA kernel takes grouped queries with a mask or in float32; torch would build the whole score matrix
        k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal=is_causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out.permute(2, 0, 1, 3)


def by_heads(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """[b, heads, s, d] as the kernel of the device likes them: one of a CPU reads a head at a time, and they come with
    all heads of a position together.
    """
    return [tensor.contiguous() if tensor.is_cpu else tensor for tensor in tensors]


def attend_share(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rank: int,
    size: int,
    *,
    dropout: float = 0.0,
    scale: float | None = None,
) -> torch.Tensor:
    """Causal attention of one rank's two chunks over the whole sequence of keys; see `zigzag`.

    query [s, b, heads, d] holds chunks `rank` and `2·size-1-rank`; key, value [size·s, b, groups, d] in order.
    Each chunk meets only the keys up to its own end, so no rank computes what causality throws away.
    """
    chunk = query.shape[0] // 2
    parts = []
    for half, number in zip(torch.split(query, chunk), chunks_of(rank, size), strict=True):
        end = (number + 1) * chunk
        parts.append(attend(half, key[:end], value[:end], dropout=dropout, scale=scale))
    return torch.cat(parts)
