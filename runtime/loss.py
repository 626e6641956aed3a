"""The training objective: next-token loss over the tokens that the mask keeps."""

import torch


def masked_loss(losses: torch.Tensor, loss_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the kept losses and how many were kept, on this rank only.

    losses: [b, s], the model's loss per token in any float type; loss_mask: [b, s], 1 where a token is trained on.
    Returns the sum as a float32 scalar that carries the gradient, and the count as an int32 scalar: Megatron adds
    the counts of micro-batches into an int32 tensor, reduces both over the data- and context-parallel ranks, and
    divides once, which makes the loss a mean over tokens and not a mean of means.
    """
    kept = loss_mask.reshape(-1).float()
    return (losses.reshape(-1).float() * kept).sum(), kept.sum().to(torch.int32)
