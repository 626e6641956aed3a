"""A forward step as the compiler writes it, over rows that are made up instead of prepared."""

import json
import os
import time
from functools import partial
from pathlib import Path

import torch
from megatron.training import get_args

from sftc.runtime.batch import next_batch
from sftc.runtime.loss import masked_loss

VALID_ROWS = 6
PARTS = Path("valid_parts.jsonl")


class Rows(torch.utils.data.Dataset):
    """Row i differs from every other and trains on 1 to 20 of its tokens; filler rows train on none."""

    def __init__(self, seed, length, period=None, real=None):
        self.seed, self.length, self.period, self.real = seed, length, period, real

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        if self.period:
            index %= self.period
        generator = torch.Generator().manual_seed(self.seed + int(index))
        tokens = torch.randint(0, 100, (self.length + 1,), generator=generator).cumsum(0) % 100
        mask = torch.zeros(self.length)
        if self.real is None or index < self.real:
            mask[: 1 + int(index) * 7 % 20] = 1
        return {
            "tokens": tokens[:-1],
            "labels": tokens[1:],
            "loss_mask": mask,
            "position_ids": torch.arange(self.length),
        }


def get_batch(data_iterator):
    return next_batch(data_iterator, context_parallel=get_args().context_parallel_size > 1)


def loss_func(loss_mask, output_tensor):
    loss_sum, num_tokens = masked_loss(output_tensor, loss_mask)
    if not torch.is_grad_enabled():
        with PARTS.open("a") as file:
            file.write(json.dumps([get_args().curr_iteration + 1, loss_sum.item(), num_tokens.item()]) + "\n")
    return loss_sum, num_tokens, {"lm loss": torch.stack([loss_sum.detach(), num_tokens.float()])}


def forward_step(data_iterator, model, return_schedule_plan=False):
    batch = get_batch(data_iterator)
    time.sleep(float(os.environ.get("TINY_STEP_SECONDS", "0")))
    if get_args().curr_iteration == int(os.environ.get("TINY_STEP_HANGS_AT", "-1")):
        time.sleep(600)  # to be killed in
    if get_args().curr_iteration == int(os.environ.get("TINY_STEP_FAILS_AT", "-1")):
        if os.environ.get("TINY_STEP_ERROR") == "memory":  # no GPU is needed to run out of its memory
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. If reserved but unallocated")
        raise ArithmeticError("planted")
    output = model(batch["tokens"], batch["position_ids"], batch["attention_mask"], labels=batch["labels"])
    return output, partial(loss_func, batch["loss_mask"])


def train_valid_test_datasets_provider(num_samples, vp_stage=None):
    args = get_args()
    filled = args.eval_iters * args.global_batch_size
    return Rows(1000, args.seq_length), Rows(9000, args.seq_length, period=filled, real=VALID_ROWS), None


train_valid_test_datasets_provider.is_distributed = True
