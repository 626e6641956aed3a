# Forward step of the run own-samples. Written by sftc 0.1.0 for Megatron-Core 0.19.
# Task: supervised fine-tuning, loss on the assistant's tokens only, because `task.is_sft: true`.
"""What Megatron's pretrain() calls at each micro-batch: b is the micro-batch size, s the sequence length."""

import torch

from sftc.runtime.batch import next_batch
from sftc.runtime.hooks import hook
from sftc.runtime.loss import masked_loss

DATASETS_PROVIDER_HOOK = hook(
    "datasets_provider",
    "my_package.data:datasets",
    takes="num_samples, prepared",
    beside=__file__,
)
FORWARD_STEP_HOOK = hook(
    "forward_step",
    "my_package.steps:forward",
    takes="data_iterator, model, get_batch, loss_func",
    beside=__file__,
)


def get_batch(data_iterator):
    """The next micro-batch, on this rank's device.

    tokens          [b, s] int64    input ids; shorter samples are padded on the right
    labels          [b, s] int64    labels[:, i] is the token after tokens[:, i]
    loss_mask       [b, s] float32  1 where the label is trained on: the assistant's tokens only
    attention_mask  None            attention is causal in its kernel, and padding comes last
    position_ids    [b, s] int64    0, 1, 2, ...
    """
    return next_batch(
        data_iterator,
    )


def loss_func(batch, output_tensor):
    """Sum of the losses where the mask is 1, the number of those tokens, and both for the log.

    output_tensor is [b, s]: the cross entropy of every token. The sums are those of this micro-batch on this rank;
    Megatron adds both up over the global batch before it divides, so every supervised token weighs the same.
    """
    loss_sum, num_tokens = masked_loss(output_tensor, batch["loss_mask"])
    report = {"lm loss": torch.stack([loss_sum.detach(), num_tokens.to(loss_sum.dtype)])}
    return loss_sum, num_tokens, report


def forward_step(data_iterator, model, return_schedule_plan=False):
    """What hooks.forward_step returns: the output of `model` for one micro-batch and the function that makes its loss."""
    return FORWARD_STEP_HOOK(data_iterator, model, get_batch, loss_func)


def train_valid_test_datasets_provider(num_samples, vp_stage=None):
    """What hooks.datasets_provider returns: the training, validation and test dataset, the same on every rank."""
    return DATASETS_PROVIDER_HOOK(num_samples, None)


# Every rank opens the samples itself, so nothing is broadcast within a tensor-parallel group.
train_valid_test_datasets_provider.is_distributed = True
