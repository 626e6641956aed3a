"""The losses and gradients of documents, alone or packed, through Megatron's own GPTModel on the CPU.

    RANK=0 WORLD_SIZE=1 ... python packed_model.py STORE_ALONE STORE_PACKED POSITIONS RESULT

A rank is a context-parallel one. POSITIONS is Megatron's position_embedding_type. RESULT is written by rank 0: a JSON
object with the loss of every document, alone, in its pack, and in its pack if its borders are forgotten; and with the
largest gradient of the sum of the losses and the largest difference that packing makes to one.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch

from sftc.runtime import cpu

cpu.activate()

from megatron.core import mpu, tensor_parallel  # noqa: E402
from megatron.core.models.gpt import GPTModel  # noqa: E402
from megatron.core.transformer import TransformerConfig  # noqa: E402

from sftc.runtime.batch import next_batch  # noqa: E402
from sftc.runtime.data.dataset import PreparedData  # noqa: E402
from sftc.runtime.megatron.mends import mend_packed_rotation  # noqa: E402
from sftc.runtime.model import layer_spec  # noqa: E402
from sftc.runtime.packed import own_positions, segments  # noqa: E402


def build(size, data, positions):
    mend_packed_rotation()
    torch.distributed.init_process_group("gloo")
    mpu.initialize_model_parallel(context_parallel_size=size)
    tensor_parallel.model_parallel_cuda_manual_seed(7)
    config = TransformerConfig(
        num_layers=2,
        hidden_size=32,
        ffn_hidden_size=64,
        num_attention_heads=4,
        num_query_groups=2,
        context_parallel_size=size,
        normalization="RMSNorm",
        gated_linear_unit=True,
        add_bias_linear=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        apply_rope_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        persist_layer_norm=False,
        init_method_std=0.2,
    )
    return GPTModel(
        config,
        layer_spec(config),
        vocab_size=data.summary["vocab"],
        max_sequence_length=data.seq_length,
        position_embedding_type=positions,
    )


def kept_losses(model, samples, packed):
    """Losses of every sample, zero where the mask is zero: [1, this rank's share]."""
    size = mpu.get_context_parallel_world_size()
    for sample in samples:
        rows = {key: values.unsqueeze(0) for key, values in sample.items()}
        batch = next_batch(iter([rows]), context_parallel=size > 1, packed=packed)
        loss_mask = batch.pop("loss_mask")
        names = {"tokens": "input_ids"}
        losses = model(**{names.get(key, key): value for key, value in batch.items()})
        yield losses * loss_mask


def gradients(model):
    """All of them in one vector, summed over the ranks; the model's are zero afterwards."""
    whole = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.distributed.all_reduce(whole)
    model.zero_grad()
    return whole


def alone(model, data):
    result = []
    samples = data.valid(num_samples=1, eval_samples=data.rows("valid"))
    for losses in kept_losses(model, (samples[row] for row in range(data.rows("valid"))), packed=False):
        losses.sum().backward()
        result.append(losses.sum().detach())
    return torch.stack(result)


def in_packs(model, data, forgetful=False):
    samples = data.valid(num_samples=1, eval_samples=data.rows("valid"))
    result = torch.zeros(data.summary["splits"]["valid"]["kept"])
    packs = [samples[pack] for pack in range(data.rows("valid"))]
    borders_of = [segments(pack["cu_seqlens"]) for pack in packs]
    if forgetful:
        for pack in packs:
            pack["cu_seqlens"][1:] = data.seq_length
    rank, size = mpu.get_context_parallel_rank(), mpu.get_context_parallel_world_size()
    for pack, losses in enumerate(kept_losses(model, packs, packed=True)):
        losses.sum().backward()
        borders = borders_of[pack]
        cut = borders[[0, -1]] if forgetful else borders
        held = own_positions(cut, rank, size) if size > 1 else torch.arange(data.seq_length)
        segment = torch.bucketize(held, borders[1:], right=True)
        rows = samples._packs[pack].tolist()
        for number, row in enumerate(rows):
            result[row] = losses[0, segment == number].sum().detach()
        assert not losses[0, segment == len(rows)].any(), "padding has no loss"
    return result


def main(store_alone, store_packed, positions, result):
    data = PreparedData.open(store_alone)
    model = build(int(os.environ["WORLD_SIZE"]), data, positions)
    packed = PreparedData.open(store_packed)
    losses, found = {}, {}
    for name, run, run_data in (
        ("alone", alone, data),
        ("packed", in_packs, packed),
        ("forgetful", partial(in_packs, forgetful=True), packed),
    ):
        summed = run(model, run_data)
        torch.distributed.all_reduce(summed)
        losses[name], found[name] = summed.tolist(), gradients(model)
    if torch.distributed.get_rank() == 0:
        gradient = found["alone"].abs().max().item()
        difference = (found["alone"] - found["packed"]).abs().max().item()
        Path(result).write_text(json.dumps({**losses, "gradient": gradient, "difference": difference}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
