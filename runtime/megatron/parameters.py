"""The parameters of a rank by their place in the whole model, and where they can be filled before training."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A tensor under the name that it has in a model of one rank, layers and experts counted from 0; this rank holds
    slice `rank` of the `size` that tensor parallelism makes of it.
    """

    name: str
    parameter: Any
    rank: int
    size: int


def slots(chunks: Sequence[Any]) -> Iterator[Slot]:
    """The parameters of the model chunks (virtual pipeline stages) of this rank."""
    from megatron.core import mpu

    dense = mpu.get_tensor_model_parallel_rank(), mpu.get_tensor_model_parallel_world_size()
    sparse = mpu.get_expert_tensor_parallel_rank(), mpu.get_expert_tensor_parallel_world_size()
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            where, is_expert = place_of(chunk, name)
            rank, size = sparse if is_expert else dense
            yield Slot(name=where, parameter=parameter, rank=rank, size=size)


def place_of(chunk: Any, name: str) -> tuple[str, bool]:
    """What a parameter or module of a model chunk is called in the whole model, and whether it is one expert's."""
    is_expert, where = False, name
    if match := _LAYER.match(where):
        number = chunk.decoder.layers[int(match[2])].layer_number - 1
        where = f"{match[1]}{number}{where[match.end(2) :]}"
    if match := _EXPERT.search(where):
        is_expert = True
        where = f"{where[: match.start(2)]}{first_expert(chunk) + int(match[2])}{where[match.end(2) :]}"
    return where, is_expert


_LAYER = re.compile(r"^(decoder\.layers\.)(\d+)(?=\.|$)")
# one module per expert, or one weight per expert in a grouped module
_EXPERT = re.compile(r"(\.experts\.local_experts\.|\.experts\.linear_fc[12]\.(?:weight|bias))(\d+)")


def first_expert(chunk: Any) -> int:
    """Experts are dealt out in order: rank r of the expert-parallel group holds the r-th block of them."""
    from megatron.core import mpu

    own = chunk.config.num_moe_experts // mpu.get_expert_model_parallel_world_size()
    return int(mpu.get_expert_model_parallel_rank() * own)
