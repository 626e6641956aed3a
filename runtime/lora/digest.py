"""The digest of a model's weights, whatever their order, their layout and their names: a sum over mixed values.

It is computed at the speed at which memory is read, and finds other weights; it is no proof against somebody who wants
to deceive. Zeros count for nothing, so the padding of a vocabulary changes nothing.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch

BASE = "lora_base"  # its name in a checkpoint
BLOCK = 1 << 24  # values that are looked at together
# Linears of which every tensor-parallel rank holds a part, by Megatron's names.
SPLIT = re.compile(r"(linear_(qkv|fc1)\.(weight|bias)|(linear_(proj|fc2)|word_embeddings|output_layer)\.weight)")


def checksum(values: torch.Tensor) -> torch.Tensor:
    """The sum, one int64 that wraps around, of float32 or half-precision `values`."""
    total = torch.zeros(1, dtype=torch.int64, device=values.device)
    for block in torch.split(values.detach().reshape(-1), BLOCK):
        bits = block.view(torch.int16 if block.element_size() == 2 else torch.int32).to(torch.int64)
        mixed = bits * 0x9E3779B97F4A7C1
        total += ((mixed ^ (mixed >> 29)) * 0x27D4EB2F165667C5).sum()
    return total


def word(total: torch.Tensor) -> str:
    """As 16 hexadecimal digits."""
    return f"{int(total) % (1 << 64):016x}"


def digest_of(chunks: Sequence[Any]) -> torch.Tensor:
    """The sum over the whole model, of which every rank holds some chunks. All ranks have to call it."""
    # Megatron builds linears on the GPU, and moves norms and routers there only after this; NCCL adds up on GPUs alone.
    total = torch.zeros(1, dtype=torch.int64, device=torch.cuda.current_device())
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            if _counts(chunk, name, parameter):
                total += checksum(parameter).to(total.device)
    torch.distributed.all_reduce(total)
    return total


def _counts(chunk: Any, name: str, parameter: torch.Tensor) -> bool:
    """Whether this is the rank that counts what several hold."""
    from megatron.core import mpu

    if name == "output_layer.weight" and chunk.share_embeddings_and_output_weights:
        return False  # a copy of the embedding, on the last pipeline stage
    if ".experts." in name:
        replica, rank = mpu.get_expert_data_parallel_rank(), mpu.get_expert_tensor_parallel_rank()
    else:
        replica, rank = mpu.get_data_parallel_rank(with_context_parallel=True), mpu.get_tensor_model_parallel_rank()
    is_split = getattr(parameter, "tensor_model_parallel", False) or SPLIT.search(name)
    return replica == 0 and (rank == 0 or bool(is_split))
