"""Label smoothing: 1 - SMOOTHING of the target is the label's, and the rest is spread evenly over the vocabulary."""

from functools import partial

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region, vocab_parallel_cross_entropy
from megatron.core.utils import get_attr_wrapped_model

SMOOTHING = 0.1


def forward_step(data_iterator, model, get_batch, loss_func):
    """hooks.forward_step: asks the model for logits and makes the losses of them.

    Evaluation is without smoothing, so that its losses can be compared.
    """
    batch = get_batch(data_iterator)
    output = model(
        batch["tokens"],
        batch["position_ids"],
        batch["attention_mask"],
        packed_seq_params=batch.get("packed_seq_params"),
    )
    if get_attr_wrapped_model(model, "post_process"):  # the last pipeline stage
        output = smoothed(output.float(), batch["labels"], SMOOTHING if model.training else 0.0)
    return output, partial(loss_func, batch)


def smoothed(logits, labels, smoothing):
    """The loss of each token, [b, s]. logits: [b, s, v] of this rank's share of the vocabulary; labels: [b, s].

    With z the logits, the cross entropy against the even spread exceeds that against the label y by z_y - mean(z).
    (Megatron's own smoothing takes the mean over one rank's share.)
    """
    share = logits.shape[-1]
    own = labels - parallel_state.get_tensor_model_parallel_rank() * share
    is_own = (own >= 0) & (own < share)
    label = logits.gather(-1, own.clamp(0, share - 1)[..., None])[..., 0] * is_own
    label, total = reduce_from_tensor_model_parallel_region(torch.stack([label, logits.sum(-1)]))
    excess = label - total / (share * parallel_state.get_tensor_model_parallel_world_size())
    # Megatron wants s first, and works in place
    own_copy = logits.transpose(0, 1).clone(memory_format=torch.contiguous_format)
    losses = vocab_parallel_cross_entropy(own_copy, labels.transpose(0, 1).contiguous())
    return losses.transpose(0, 1) + smoothing * excess
