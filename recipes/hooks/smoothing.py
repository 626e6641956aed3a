"""Label smoothing: the right token gets 1 - SMOOTHING of the target, all others share the rest."""

from functools import partial

from megatron.core.tensor_parallel import vocab_parallel_cross_entropy
from megatron.core.utils import get_attr_wrapped_model

SMOOTHING = 0.1


def forward_step(data_iterator, model, get_batch, loss_func):
    """hooks.forward_step: asks the model for logits and makes the losses of them.

    The vocabulary may be split over ranks. Evaluation is without smoothing, so that its losses can be compared.
    """
    batch = get_batch(data_iterator)
    output = model(
        batch["tokens"],
        batch["position_ids"],
        batch["attention_mask"],
        packed_seq_params=batch.get("packed_seq_params"),
    )
    if get_attr_wrapped_model(model, "post_process"):  # the last pipeline stage
        # logits are [b, s, vocabulary], and Megatron's cross entropy wants s first
        smoothing = SMOOTHING if model.training else 0.0
        logits, labels = output.transpose(0, 1).contiguous().float(), batch["labels"].transpose(0, 1).contiguous()
        output = vocab_parallel_cross_entropy(logits, labels, smoothing).transpose(0, 1).contiguous()
    return output, partial(loss_func, batch)
