"""Which layers and how many parameters each pipeline stage holds, on each of its ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..lora import adapted
from ..parameters import Layer, Parameters, parameters, raw_option, sparse_layers
from ..pipeline import stage_layers
from ..plan import Plan
from .sizes import Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive layers: a stage, or a virtual one. `layers` says of each whether it has experts."""

    layers: tuple[bool, ...]
    is_first: bool
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One pipeline stage. `dense` and `experts` are parameters of one rank, `trained` and `trained_experts` those that
    are not frozen, `largest` those of its largest matrix that is not.
    """

    rank: int
    chunks: tuple[Chunk, ...]
    dense: int
    experts: int
    trained: int
    trained_experts: int
    largest: int

    @property
    def layers(self) -> int:
        return sum(len(chunk.layers) for chunk in self.chunks)


def stages(plan: Plan, sizes: Sizes) -> tuple[Stage, ...]:
    """The stages in their order. The first chunk of the first one has the embedding, the last of the last one the loss;
    where a layout gives them a stage of their own, that chunk has no layers.
    """
    dealt = stage_layers(plan)
    assert dealt is not None, "the rules refuse what cannot be dealt out"
    model, sparse = parameters(plan), sparse_layers(plan)
    return tuple(_stage(plan, sizes, rank, model, sparse, held) for rank, held in enumerate(dealt))


def _stage(
    plan: Plan, sizes: Sizes, rank: int, model: Parameters, sparse: tuple[bool, ...], dealt: Sequence[range]
) -> Stage:
    last = (sizes.pp - 1, len(dealt) - 1)
    chunks = tuple(
        Chunk(
            layers=sparse[chunk.start : chunk.stop],
            is_first=(rank, number) == (0, 0),
            is_last=(rank, number) == last,
        )
        for number, chunk in enumerate(dealt)
    )
    numbers = [layer for chunk in dealt for layer in chunk]
    held = [model.layers[number] for number in numbers]
    dense = sum(_dense(plan, sizes, layer) for layer in held)
    rows = sizes.vocab * sizes.hidden
    has_first, has_last = chunks[0].is_first, chunks[-1].is_last
    if has_first:
        dense += rows + model.embedding - plan["model.vocab_size"] * sizes.hidden  # positions are held whole
    if has_last:
        dense += model.final_norm
        if model.output or not has_first:  # a tied output on another stage is a copy of the embedding
            dense += rows
    experts = sum(layer.experts for layer in held) // (sizes.ep * sizes.etp)
    if plan["lora.rank"] is not None:
        return _with_adapters(plan, sizes, rank, chunks, dense, experts, set(numbers))
    matrices = [sizes.hidden * width * (2 if sizes.is_gated else 1) for width in (sizes.ffn, sizes.expert_ffn)]
    return Stage(
        rank=rank,
        chunks=chunks,
        dense=dense,
        experts=experts,
        trained=dense,
        trained_experts=experts,
        largest=max(*matrices, rows if has_first or has_last else 0),
    )


def _with_adapters(
    plan: Plan, sizes: Sizes, rank: int, chunks: tuple[Chunk, ...], dense: int, experts: int, numbers: set[int]
) -> Stage:
    """The stage of layers `numbers`, whose own parameters are frozen."""
    width, own = plan["lora.rank"], [linear for linear in adapted(plan) if linear.layer in numbers]
    trained = sum(linear.adapter(width, sizes.tp) for linear in own if not linear.is_expert)
    shared = sum(linear.adapter(width, sizes.etp) for linear in own if linear.is_expert) // sizes.ep
    return Stage(
        rank=rank,
        chunks=chunks,
        dense=dense + trained,
        experts=experts + shared,
        trained=trained,
        trained_experts=shared,
        largest=max((width * max(linear.inputs, linear.outputs) for linear in own), default=0),
    )


def _dense(plan: Plan, sizes: Sizes, layer: Layer) -> int:
    """One layer's parameters but for the experts. Norms, the router and latent projections are held whole."""
    whole = sizes.hidden * plan["model.num_experts"] if layer.experts else 0
    if sizes.latent:
        whole += sizes.hidden * sizes.latent
    if layer.experts and (width := raw_option(plan, "moe_latent_size")):
        whole += 2 * sizes.hidden * width
    return layer.norms + whole + (layer.attention + layer.mlp - whole) // sizes.tp
