"""A forward step over made-up rows that weighs what its rank holds, in bytes, into `measured.RANK.json`: `weights`,
`gradients`, `optimizer`, and the largest sum of tensors that autograd kept at one time, `activations`.

A storage counts once, however many tensors look at it, and no parameter counts as kept. Checkpoints are written only
by a run with the name `saving`: each takes longer than such a run.
"""

import json
import os
from collections import Counter
from functools import partial, wraps
from pathlib import Path

import torch
from megatron.core.models.common.embeddings import rope_utils
from megatron.core.transformer.mlp import MLP
from megatron.training import get_args, training

from sftc.runtime import attention
from sftc.runtime.batch import next_batch
from sftc.runtime.loss import masked_loss

PLAN = json.loads(Path(__file__).with_name("plan.json").read_text())
PACKED = PLAN["values"]["data"]["packing"]["value"]
BUILT = {}


class Held:
    """A tensor that autograd keeps, counted while it does."""

    count, sizes, total, most = Counter(), {}, 0, 0

    def __init__(self, tensor):
        self.tensor = tensor
        storage = tensor.untyped_storage()
        self.key = storage.data_ptr()
        # Megatron warms functions up before it builds the model; that is over when training begins
        self.counts = "parameters" in BUILT and self.key not in BUILT["parameters"]
        if self.counts:
            Held.count[self.key] += 1
            if Held.count[self.key] == 1:
                Held.sizes[self.key] = storage.nbytes()
                Held.total += storage.nbytes()
                Held.most = max(Held.most, Held.total)

    def __del__(self):
        if self.counts:
            Held.count[self.key] -= 1
            if Held.count[self.key] == 0:
                Held.total -= Held.sizes.pop(self.key)


def storages(tensors):
    """Bytes by storage."""
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}


def listen():
    setup, save = training.setup_model_and_optimizer, training.save_checkpoint_and_time

    @wraps(setup)
    def built(*args, **kwargs):
        BUILT["model"], BUILT["optimizer"], *_ = found = setup(*args, **kwargs)
        BUILT["parameters"] = storages(p for chunk in BUILT["model"] for p in chunk.parameters())
        return found

    @wraps(save)
    def weighed(*args, **kwargs):  # after the last iteration
        Path(f"measured.{os.environ['RANK']}.json").write_text(json.dumps(weigh()))
        if PLAN["name"] == "saving":
            save(*args, **kwargs)

    training.setup_model_and_optimizer, training.save_checkpoint_and_time = built, weighed
    torch._C._autograd._push_saved_tensors_default_hooks(Held, lambda held: held.tensor)


def as_on_a_gpu():
    """The estimate is for GPUs: the CPU's own ways keep less."""
    MLP.forward = MLP.forward.__wrapped__
    rope_utils._apply_rotary_pos_emb_bshd = rope_utils._apply_rotary_pos_emb_bshd.__wrapped__
    attention.by_heads = lambda tensors: tensors


as_on_a_gpu()
listen()


def weigh():
    buffers = [buffer for chunk in BUILT["model"] for buffer in (*chunk.buffers, *chunk.expert_parallel_buffers)]
    gradients = storages(buffer.grad_data for buffer in buffers)
    inner = [one.optimizer for one in getattr(BUILT["optimizer"], "chained_optimizers", [BUILT["optimizer"]])]
    states = [value for one in inner for state in one.state.values() for value in state.values()]
    masters = [parameter for one in inner for group in one.param_groups for parameter in group["params"]]
    optimizer = storages([*filter(torch.is_tensor, states), *masters])
    held = {**BUILT["parameters"], **gradients}
    return {
        "weights": sum(BUILT["parameters"].values()),
        "gradients": sum(gradients.values()),
        "optimizer": sum(size for key, size in optimizer.items() if key not in held),
        "activations": Held.most,
    }


class Rows(torch.utils.data.Dataset):
    """Row i differs from every other and trains on all its tokens; as a pack it holds two documents."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(int(index))
        tokens = torch.randint(0, 100, (self.length + 1,), generator=generator)
        return {
            "tokens": tokens[:-1],
            "labels": tokens[1:],
            "loss_mask": torch.ones(self.length),
            "position_ids": torch.arange(self.length),
            "cu_seqlens": torch.tensor([0, self.length // 2, self.length], dtype=torch.int32),
        }


def loss_func(loss_mask, output_tensor):
    loss_sum, num_tokens = masked_loss(output_tensor, loss_mask)
    return loss_sum, num_tokens, {"lm loss": torch.stack([loss_sum.detach(), num_tokens.float()])}


def forward_step(data_iterator, model, return_schedule_plan=False):
    batch = next_batch(data_iterator, context_parallel=get_args().context_parallel_size > 1, packed=PACKED)
    packs = {"packed_seq_params": batch["packed_seq_params"]} if PACKED else {}
    output = model(batch["tokens"], batch["position_ids"], batch["attention_mask"], labels=batch["labels"], **packs)
    return output, partial(loss_func, batch["loss_mask"])


def train_valid_test_datasets_provider(num_samples, vp_stage=None):
    return Rows(get_args().seq_length), None, None


train_valid_test_datasets_provider.is_distributed = True
