"""What a checkpoint of adapters holds: the adapters, and the digest of the weights beside which they were trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import UserError
from .adapter import Adapter
from .digest import BASE, word


def save_adapters_only(chunk: Any, number: int, adapters: Sequence[Adapter], base: torch.Tensor) -> None:
    """Let what Megatron saves and loads of `chunk`, the `number`-th of this rank, be its `adapters`.

    base: the digest of all other weights. Tensors are known by their place in the whole model, so another layout reads
    them, too. Loading raises UserError for adapters of another base.
    """
    parameters = {
        f"{adapter.place.name}.lora.{name}": (adapter, name, parameter)
        for adapter in adapters
        for name, parameter in adapter.named_parameters()
    }

    def sharded_state_dict(prefix: str = "", *_: Any, **__: Any) -> dict[str, Any]:
        tensors = {prefix + key: _sharded(prefix + key, *found) for key, found in parameters.items()}
        return {**tensors, BASE: _digest(base, number)}

    def load_state_dict(state: Mapping[str, Any], **__: Any) -> None:
        require_base(saved=word(state[BASE]), loaded=word(base))
        with torch.no_grad():
            for key, (_, _, parameter) in parameters.items():
                parameter.copy_(state[key])

    chunk.sharded_state_dict = sharded_state_dict
    chunk.load_state_dict = load_state_dict


def require_base(*, saved: str, loaded: str) -> None:
    """UserError unless the weights that are `loaded` are those beside which the adapters were `saved`, by digest."""
    if saved != loaded:
        raise UserError(
            f"the adapters of this checkpoint were trained beside weights of digest {saved}, and those of `model.load` "
            f"have {loaded}",
            help="put the weights back that the run began with, or start a new run from these",
        )


def _digest(base: torch.Tensor, number: int) -> Any:
    from megatron.core.dist_checkpointing import ShardedTensor

    copy = number * torch.distributed.get_world_size() + torch.distributed.get_rank()
    return ShardedTensor.from_rank_offsets(BASE, base.clone(), replica_id=copy)


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
