"""The cross entropy of an output layer without its logits: a slice of the tokens at a time, vocabulary-parallel too.

Logits of all tokens of a micro-batch are the largest tensor of a model with a large vocabulary, and Megatron keeps
their softmax in float32 for the backward pass. Here a slice of them is computed, used and forgotten, and computed once
more in the backward pass. Where the loss mask is known, tokens that are not trained on take no part at all.
"""

from collections.abc import Iterator
from typing import Any

import torch
from megatron.core import tensor_parallel
from torch.distributed import ReduceOp, all_reduce

# Logits of one slice. What a CPU adds up it should still have in its cache; a GPU wants large matrix products.
ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 27}


def token_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    loss_mask: torch.Tensor | None,
    *,
    group: Any,
    sequence_parallel: bool,
) -> torch.Tensor:
    """-log softmax(hidden · weightᵀ)[label] of each token: [b, s] float32.

    hidden [s, b, h] is what the last layer returns, of which a tensor-parallel rank has s/TP positions where
    `sequence_parallel` is set; weight [v, h] is this rank's share of the vocabulary; labels [b, s] are ids of the whole
    one; group: the tensor-parallel ranks. Where loss_mask [b, s] is 0 nothing is computed and the loss is 0.
    """
    if sequence_parallel:
        hidden = tensor_parallel.gather_from_sequence_parallel_region(hidden, group=group)
    elif group.size() > 1:
        hidden = tensor_parallel.copy_to_tensor_model_parallel_region(hidden, group=group)
    rows, wanted = hidden.flatten(0, 1), labels.t().flatten()
    if loss_mask is None:
        losses = LinearCrossEntropy.apply(rows, weight, wanted, group)
    else:
        kept = loss_mask.t().flatten().nonzero().squeeze(1)
        found = LinearCrossEntropy.apply(rows.index_select(0, kept), weight, wanted[kept], group)
        losses = torch.zeros(len(rows), dtype=torch.float32, device=rows.device).index_copy(0, kept, found)
    ordered: torch.Tensor = losses.view(hidden.shape[:2]).t().contiguous()
    return ordered


class LinearCrossEntropy(torch.autograd.Function):
    """(hidden [n, h], weight [v, h], labels [n], group) → losses [n] float32; the logits are products in hidden's type.

    With several ranks in `group`, weight is a share of the vocabulary, and the gradient of hidden is this rank's part
    of a sum. What a rank finds in its share is put together once for all slices: the largest logit, the sum of the
    exponentials below it, and the logit of the label, which one rank has.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, group: Any) -> torch.Tensor:
        own = labels - group.rank() * len(weight)
        is_other = (own < 0) | (own >= len(weight))
        own = own.masked_fill(is_other, 0)
        highest, total, wanted = hidden.new_empty((3, len(hidden)), dtype=torch.float32)
        for part in slices(len(hidden), weight):
            logits = (hidden[part] @ weight.t()).float()
            highest[part] = logits.amax(dim=1)
            wanted[part] = logits.gather(1, own[part].unsqueeze(1)).squeeze(1)
            total[part] = logits.sub_(highest[part].unsqueeze(1)).exp_().sum(dim=1)
        if group.size() > 1:
            own_highest = highest.clone()
            all_reduce(highest, ReduceOp.MAX, group=group)
            sums = torch.stack([total * (own_highest - highest).exp(), wanted.masked_fill(is_other, 0)])
            all_reduce(sums, group=group)
            total, wanted = sums
        ctx.save_for_backward(hidden, weight, own, is_other, highest + total.log())
        losses: torch.Tensor = total.log() + (highest - wanted)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        """Of the logits: softmax less 1 at the label, times the gradient of the loss. Weights add up in float32."""
        hidden, weight, own, is_other, normalizer = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part in slices(len(hidden), weight):
            slope = (hidden[part] @ weight.t()).float().sub_(normalizer[part].unsqueeze(1)).exp_()
            slope.scatter_add_(1, own[part].unsqueeze(1), is_other[part].float().sub_(1).unsqueeze(1))
            slope = slope.mul_(grads[0][part].unsqueeze(1)).to(hidden.dtype)
            if of_hidden is not None:
                torch.mm(slope, weight, out=of_hidden[part])
            if of_weight is not None:
                if weight.dtype == torch.float32:
                    of_weight.addmm_(slope.t(), hidden[part])
                else:
                    of_weight += slope.t() @ hidden[part]
        return of_hidden, None if of_weight is None else of_weight.to(weight.dtype), None, None


def slices(count: int, weight: torch.Tensor) -> Iterator[slice]:
    """Consecutive ranges of `count` tokens, each with as many logits as `ELEMENTS` says, or a few less."""
    most = max(1, ELEMENTS["cpu" if weight.is_cpu else "cuda"] // len(weight))
    each = -(-count // max(1, -(-count // most)))
    for start in range(0, count, max(1, each)):
        yield slice(start, start + each)
