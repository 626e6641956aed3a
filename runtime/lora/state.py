"""What a checkpoint of adapters holds: the adapters, and the digest of the weights beside which they were trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import UserError
from .adapter import Adapter

BASE = "lora_base"


def save_adapters_only(chunk: Any, adapters: Sequence[Adapter], base: str) -> None:
    """Let what Megatron saves and loads of `chunk` be its `adapters`; `base` is the digest of all its other weights.

    Tensors are known by their place in the whole model, so another layout reads them, too. Loading raises UserError
    for adapters of another base.
    """
    parameters = {
        f"{adapter.place.name}.lora.{name}": (adapter, name, parameter)
        for adapter in adapters
        for name, parameter in adapter.named_parameters()
    }

    def sharded_state_dict(prefix: str = "", *_: Any, **__: Any) -> dict[str, Any]:
        tensors = {prefix + key: _sharded(prefix + key, *found) for key, found in parameters.items()}
        return {**tensors, BASE: base}

    def load_state_dict(state: Mapping[str, Any], **__: Any) -> None:
        if state[BASE] != base:
            raise UserError(
                f"the adapters of this checkpoint were trained beside weights of digest {state[BASE]}, and those of "
                f"`model.load` have {base}",
                help="put the weights back that the run began with, or start a new run from these",
            )
        with torch.no_grad():
            for key, (_, _, parameter) in parameters.items():
                parameter.copy_(state[key])

    chunk.sharded_state_dict = sharded_state_dict
    chunk.load_state_dict = load_state_dict


def digest_of(parameters: Sequence[torch.Tensor]) -> str:
    """Of the weights that all ranks hold, 16 hexadecimal digits. Every rank has to call it.

    A sum over all values, which are mixed first: the same for the same weights in the same layout, at the speed at
    which memory is read. It finds other weights; it is no proof against somebody who wants to deceive.
    """
    device = parameters[0].device
    total = torch.zeros(1, dtype=torch.int64, device=device)
    for number, parameter in enumerate(parameters, start=1):
        for block in torch.split(parameter.detach().reshape(-1), 1 << 24):
            bits = block.view(torch.int16 if block.element_size() == 2 else torch.int32).to(torch.int64)
            mixed = bits * 0x9E3779B97F4A7C1 + number
            total += ((mixed ^ (mixed >> 29)) * 0x27D4EB2F165667C5).sum()
    torch.distributed.all_reduce(total)
    return f"{int(total) % (1 << 64):016x}"


def _sharded(key: str, adapter: Adapter, name: str, parameter: torch.Tensor) -> Any:
    from megatron.core import mpu
    from megatron.core.dist_checkpointing import ShardedTensor
    from megatron.core.transformer.mlp import apply_swiglu_sharded_factory

    place, axis = adapter.place, adapter.axis(name)
    replica = mpu.get_expert_data_parallel_rank() if place.is_expert else mpu.get_data_parallel_rank(True)
    parts = [] if axis is None else [(axis, place.rank, place.size)]
    copy = place.rank if axis is None else 0
    sharded = ShardedTensor.from_rank_offsets(key, parameter, *parts, replica_id=(0, copy, replica))
    # each rank has its part of both halves
    return apply_swiglu_sharded_factory(sharded, ()) if place.is_gated and name == "b" else sharded
