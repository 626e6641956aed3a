"""A forward step over made-up rows that keeps the logits of the last evaluation, in `logits.RANK.pt`."""

import os
from functools import partial

import torch
from megatron.core.utils import unwrap_model
from megatron.training import get_args

from sftc.runtime.batch import next_batch
from sftc.runtime.loss import masked_loss

TOKENS = {}


class Rows(torch.utils.data.Dataset):
    """Row i differs from every other and trains on all its tokens."""

    def __init__(self, seed, length):
        self.seed, self.length = seed, length

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(self.seed + int(index) % 4)
        tokens = torch.randint(0, 100, (self.length + 1,), generator=generator)
        return {
            "tokens": tokens[:-1],
            "labels": tokens[1:],
            "loss_mask": torch.ones(self.length),
            "position_ids": torch.arange(self.length),
        }


def keep(_module, _inputs, output):
    if not torch.is_grad_enabled():
        kept = {"tokens": TOKENS["last"], "logits": output[0].transpose(0, 1).float()}
        torch.save(kept, f"logits.{os.environ['RANK']}.pt")


def loss_func(loss_mask, output_tensor):
    loss_sum, num_tokens = masked_loss(output_tensor, loss_mask)
    return loss_sum, num_tokens, {"lm loss": torch.stack([loss_sum.detach(), num_tokens.float()])}


def forward_step(data_iterator, model, return_schedule_plan=False):
    batch = next_batch(data_iterator, context_parallel=get_args().context_parallel_size > 1)
    whole = unwrap_model(model)
    if whole.post_process and "hook" not in TOKENS:
        TOKENS["hook"] = whole.output_layer.register_forward_hook(keep)
    TOKENS["last"] = batch["tokens"]
    output = model(batch["tokens"], batch["position_ids"], batch["attention_mask"], labels=batch["labels"])
    return output, partial(loss_func, batch["loss_mask"])


def train_valid_test_datasets_provider(num_samples, vp_stage=None):
    length = get_args().seq_length
    return Rows(1000, length), Rows(9000, length), None


train_valid_test_datasets_provider.is_distributed = True
