# Forward step of the run gsm8k-smollm2-cpu. Written by sftc 0.1.0 for Megatron-Core 0.19.
# Task: supervised fine-tuning, loss on the assistant's tokens only, because `task.is_instruction_dataset: true`.
"""What Megatron's pretrain() calls at each micro-batch: b is the micro-batch size, s the sequence length."""

from functools import partial

import torch

from sftc.runtime.batch import next_batch
from sftc.runtime.data.dataset import PreparedData
from sftc.runtime.loss import masked_loss

RUN_PATH = "runs/gsm8k-smollm2-cpu"
SEQ_LENGTH = 512
SEED = 1234
GLOBAL_BATCH_SIZE = 4
MICRO_BATCH_SIZE = 2
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
    """Sum of the losses where the mask is 1, the number of those tokens, and both for the log.

    output_tensor is [b, s]: the cross entropy of every token that is trained on, and 0 elsewhere.
    The sums are those of this micro-batch on this rank;
    Megatron adds both up over the global batch before it divides, so every supervised token weighs the same.
    """
    loss_sum, num_tokens = masked_loss(output_tensor, batch["loss_mask"])
    report = {"lm loss": torch.stack([loss_sum.detach(), num_tokens.to(loss_sum.dtype)])}
    return loss_sum, num_tokens, report


def forward_step(data_iterator, model, return_schedule_plan=False):
    """The output of `model` for one micro-batch (or its schedule, if asked for) and the function that makes its loss."""
    batch = get_batch(data_iterator)
    step = model.build_schedule_plan if return_schedule_plan else model
    output = step(
        batch["tokens"],
        batch["position_ids"],
        batch["attention_mask"],
        labels=batch["labels"],
        loss_mask=batch["loss_mask"],  # where it is 0 no loss is computed
    )
    return output, partial(loss_func, batch)


def train_valid_test_datasets_provider(num_samples, vp_stage=None):
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


# Every rank opens the samples itself, so nothing is broadcast within a tensor-parallel group.
train_valid_test_datasets_provider.is_distributed = True
