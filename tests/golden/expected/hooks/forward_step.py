# Forward step of the run hooks. Written by sftc 0.1.0 for Megatron-Core 0.19.
# Task: supervised fine-tuning, loss on the assistant's tokens only, because `task.is_instruction_dataset: true`.
"""What Megatron's pretrain() calls at each micro-batch: b is the micro-batch size, s the sequence length."""

from functools import partial

import torch

from sftc.runtime.batch import next_batch
from sftc.runtime.data.dataset import PreparedData
from sftc.runtime.hooks import hook

DATASETS_PROVIDER_HOOK = hook(
    "datasets_provider",
    "hook_weighted_answers.py:datasets",
    takes="num_samples, prepared",
    beside=__file__,
)
LOSS_HOOK = hook(
    "loss",
    "hook_weighted_answers.py:loss",
    takes="losses, loss_mask, batch",
    beside=__file__,
)
METRICS_HOOK = hook(
    "metrics",
    "hook_confidence.py:metrics",
    takes="losses, loss_mask, batch",
    beside=__file__,
)

RUN_PATH = "runs/hooks"
SEQ_LENGTH = 96
SEED = 1234
GLOBAL_BATCH_SIZE = 32
MICRO_BATCH_SIZE = 32
DATA_PARALLEL_SIZE = 1
PAD_TO = 16  # a micro-batch is as long as its longest sample, rounded up to a multiple of this


def get_batch(data_iterator):
    """The next micro-batch, on this rank's device.

    tokens          [b, s] int64    input ids, padded on the right to the longest sample, rounded up
    labels          [b, s] int64    labels[:, i] is the token after tokens[:, i]
    loss_mask       [b, s] float32  1 where the label is trained on: the assistant's tokens only
    attention_mask  None            attention is causal in its kernel, and padding comes last
    position_ids    [b, s] int64    0, 1, 2, ...
    """
    return next_batch(
        data_iterator,
        longest=PAD_TO,
    )


def loss_func(batch, output_tensor):
    """What hooks.loss returns: a sum, what it is divided by, and both for the log.

    output_tensor is [b, s]: the cross entropy of every token. The sums are those of this micro-batch on this rank;
    Megatron adds both up over the global batch before it divides.
    """
    loss_sum, num_tokens = LOSS_HOOK(output_tensor, batch["loss_mask"], batch)
    report = {"lm loss": torch.stack([loss_sum.detach(), num_tokens.to(loss_sum.dtype)])}
    report |= METRICS_HOOK(output_tensor.detach(), batch["loss_mask"], batch)  # a sum and a count for each name
    return loss_sum, num_tokens, report


def forward_step(data_iterator, model, return_schedule_plan=False):
    """The output of `model` for one micro-batch (or its schedule, if asked for) and the function that makes its loss."""
    batch = get_batch(data_iterator)
    step = model.build_schedule_plan if return_schedule_plan else model
    output = step(batch["tokens"], batch["position_ids"], batch["attention_mask"], labels=batch["labels"])
    return output, partial(loss_func, batch)


def prepared_datasets(num_samples):
    """The prepared rows: training samples in a seeded order, validation rows in file order, no test set.

    Within a global batch they are arranged so that rows of like length share a micro-batch, and ranks get like work.
    """
    data = PreparedData.of_run(RUN_PATH)
    train = data.train(
        seq_length=SEQ_LENGTH,
        num_samples=num_samples[0],
        seed=SEED,
        global_batch_size=GLOBAL_BATCH_SIZE,
        micro_batch_size=MICRO_BATCH_SIZE,
        data_parallel_size=DATA_PARALLEL_SIZE,
    )
    return train, data.valid(seq_length=SEQ_LENGTH, num_samples=num_samples[1]), None


def train_valid_test_datasets_provider(num_samples, vp_stage=None):
    """What hooks.datasets_provider returns: the training, validation and test dataset, the same on every rank."""
    return DATASETS_PROVIDER_HOOK(num_samples, prepared_datasets)


# Every rank opens the samples itself, so nothing is broadcast within a tensor-parallel group.
train_valid_test_datasets_provider.is_distributed = True
