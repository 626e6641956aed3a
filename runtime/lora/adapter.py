"""The two matrices beside one linear, split over the ranks as the linear is."""

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

from .settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a linear of `inputs` and `outputs` features, over all ranks, stands.

    split: what tensor parallelism divides over `group`: the outputs (`column`) or the inputs (`row`). Under sequence
    parallelism (`is_sequential`) the tokens come divided into a column-parallel linear and leave a row-parallel one
    divided. Experts get and return partial sums: the token dispatcher adds them up. is_gated: the outputs are the two
    halves of a gated MLP.
    """

    name: str
    inputs: int
    outputs: int
    split: Literal["column", "row"]
    group: Any
    rank: int
    size: int
    is_expert: bool
    is_sequential: bool
    is_gated: bool


class Adapter(torch.nn.Module):
    """scale · B · A · dropout(x): x [..., inputs of this rank] → [..., outputs of this rank].

    A is [rank, inputs] and split with the inputs, B is [outputs, rank] and split with the outputs; the narrow tensor
    between them is all that the ranks exchange. A starts uniform within ±1/√inputs (`peft`'s kaiming_uniform with
    a = √5), drawn whole from a seed of its own, so that it is the same in every layout; B starts at zero.
    """

    def __init__(self, settings: Settings, place: Place, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.place = place
        self.sequence_parallel = place.is_sequential  # switched off while whole sequences are worked on
        self.dropout, self.scale = settings.dropout, settings.scale
        outputs = place.outputs // (place.size if place.split == "column" else 1)
        first = _first(settings, place)
        if place.split == "row":
            first = first.chunk(place.size, dim=1)[place.rank]
        self.a = torch.nn.Parameter(first.to(dtype=dtype, device=device, copy=True).contiguous())
        self.b = torch.nn.Parameter(torch.zeros(outputs, settings.rank, dtype=dtype, device=device))

    def axis(self, name: str) -> int | None:
        """The axis of A or B that is divided over the ranks of `place.group`; None for the one that each has whole."""
        if self.place.split == "column":
            return 0 if name == "b" else None
        return 1 if name == "a" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        place, a, b = self.place, self.a, self.b
        if place.size == 1:
            return functional.linear(self._narrowed(x, a), b)
        from megatron.core.tensor_parallel import mappings

        if place.is_expert:
            # What each rank adds to the gradient of the whole matrix is a part; its activations are the dispatcher's.
            whole = mappings.copy_to_tensor_model_parallel_region(a if place.split == "column" else b, place.group)
            a, b = (whole, b) if place.split == "column" else (a, whole)
            return functional.linear(self._narrowed(x, a), b)
        narrow = self._narrowed(x, a)
        if self.sequence_parallel:
            # The whole matrix sees a part of the tokens: Megatron adds up its gradients (`sequence_parallel`).
            if place.split == "column":
                narrow = mappings.gather_from_sequence_parallel_region(narrow, group=place.group)
            else:
                narrow = mappings.reduce_scatter_to_sequence_parallel_region(narrow, group=place.group)
        elif place.split == "column":
            narrow = mappings.copy_to_tensor_model_parallel_region(narrow, group=place.group)
        else:
            narrow = mappings.reduce_from_tensor_model_parallel_region(narrow, group=place.group)
        return functional.linear(narrow, b)

    def _narrowed(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        if self.dropout and self.training:
            with self._random():
                x = functional.dropout(x, self.dropout)
        return functional.linear(x, a) * self.scale

    def _random(self) -> AbstractContextManager[Any]:
        """Ranks that hold the same input drop the same of it, and others do not."""
        place = self.place
        if place.split == "column" and not place.is_sequential:
            return nullcontext()
        from megatron.core.tensor_parallel import random

        tracker = random.get_cuda_rng_tracker()
        context: AbstractContextManager[Any] = (
            tracker.fork(random.get_expert_parallel_rng_tracker_name()) if place.is_expert else tracker.fork()
        )
        return context


class GroupedAdapter(torch.nn.ModuleList):
    """The adapters of all experts of this rank whose linears are one module (Transformer Engine's grouped ones).

    Rows are sorted by expert; `counts` says how many each expert has.
    """

    def forward(self, x: torch.Tensor, counts: Sequence[int] | torch.Tensor) -> torch.Tensor:
        parts = torch.split(x, [int(count) for count in counts])
        return torch.cat([adapter(part) for adapter, part in zip(self, parts, strict=True)])


def _first(settings: Settings, place: Place) -> torch.Tensor:
    digest = hashlib.sha256(f"{settings.seed} {place.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    bound = 1 / math.sqrt(place.inputs)
    # on the CPU by name: the device that tensors are made on by default may be another
    whole = torch.empty(settings.rank, place.inputs, dtype=torch.float32, device="cpu")
    return whole.uniform_(-bound, bound, generator=generator)
