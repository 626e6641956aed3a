"""What one rank of each pipeline stage holds at its fullest moment, in bytes.

States: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020), section 3.1,
with the bytes that Megatron spends: half-precision weights, a gradient buffer, a float32 copy of the weights and two
float32 moments; the distributed optimizer divides the last two over the ranks that hold the same weights.
"""

from dataclasses import dataclass

from . import activations
from .schedule import waiting
from .sizes import Sizes
from .stages import Chunk, Stage

GIB = 1 << 30
# Assumptions, not formulas; docs/estimate.md says what they rest on.
CONTEXT = 7 * GIB // 10  # the driver's context, kernels and the workspaces of their libraries
GROUP = 3 * GIB // 10  # communication buffers of each kind of parallelism in use
FRAGMENTS = 0.10  # of what comes and goes: blocks that the allocator cannot use again


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A moment of the forward or backward pass. `kept` is saved for the backward pass, `recomputed` was not and is made
    again, `logits` is the softmax of the loss, `passing` exists beside it for the time of one operation.
    """

    kept: int
    recomputed: int = 0
    logits: int = 0
    passing: int = 0

    @property
    def saved(self) -> int:
        """What autograd holds."""
        return self.kept + self.recomputed + self.logits

    @property
    def total(self) -> int:
        return self.saved + self.passing


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Bytes of one rank of a stage when it holds most: in a pass, or (`at_step`) when the optimizer steps."""

    stage: int
    layers: int
    in_flight: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    overhead: int
    at_step: bool

    @property
    def total(self) -> int:
        return self.torch + self.overhead

    @property
    def torch(self) -> int:
        """What torch allocates, without what lies around it."""
        states = self.weights + self.gradients + self.optimizer
        return states + self.activations + self.logits + self.workspace


def rank_memory(sizes: Sizes, stage: Stage) -> RankMemory:
    held = stage.dense + stage.experts
    fullest = max(moments(sizes, stage), key=lambda moment: moment.total)
    passing, step = _gradients_on_their_way(sizes, stage), step_workspace(sizes, stage)
    at_step = step > fullest.total + passing
    logits = 0 if at_step else fullest.logits + fullest.passing
    kept = 0 if at_step else fullest.kept + fullest.recomputed
    workspace = step if at_step else passing
    return RankMemory(
        stage=stage.rank,
        layers=stage.layers,
        in_flight=max(sum(counts) for counts in _waiting(sizes, stage)),
        weights=held * sizes.element,
        gradients=(stage.trained + stage.trained_experts) * sizes.gradient,
        optimizer=optimizer_bytes(sizes, stage),
        activations=kept,
        logits=logits,
        workspace=workspace,
        overhead=overhead(sizes, kept + logits + workspace),
        at_step=at_step,
    )


def optimizer_bytes(sizes: Sizes, stage: Stage) -> int:
    """Master weights and moments of the parameters whose states this rank has."""
    dense, experts = _shards(sizes, stage)
    return (dense + experts) * (sizes.master + sizes.moments)


def step_workspace(sizes: Sizes, stage: Stage) -> int:
    """torch's AdamW makes the root of all second moments at once (`foreach`), unless it is fused; for unsharded fp16
    there are float32 gradients besides.

    Transformer Engine's fused optimizer makes neither copy; on a CPU torch goes parameter by parameter.
    """
    if sizes.on_cpu or not sizes.is_native:
        return 0
    dense, experts = _shards(sizes, stage)
    return (dense + experts) * ((0 if sizes.fused_adam else 4) + (4 if sizes.gradient == 2 else 0))


def moments(sizes: Sizes, stage: Stage) -> list[Moment]:
    """The moments at which a rank may hold most."""
    found = []
    kept = [kept_by(sizes, chunk) for chunk in stage.chunks]
    last = stage.chunks[-1]
    logits = activations.kept_logits(sizes) if last.is_last else 0
    head = activations.head(sizes) if last.is_last else 0
    redone = max(recomputed_by(sizes, chunk) for chunk in stage.chunks)
    for counts in _waiting(sizes, stage):
        layers = sum(count * size for count, size in zip(counts, kept, strict=True))
        heads = counts[-1] * head
        passing = activations.passing_logits(sizes) if last.is_last else 0
        found.append(Moment(kept=layers + heads, logits=counts[-1] * logits, passing=passing))
        # The loss comes first in the backward pass: its tensors are gone when a layer is made again.
        found.append(Moment(kept=layers, recomputed=redone))
    return found


def kept_by(sizes: Sizes, chunk: Chunk) -> int:
    """What one micro-batch leaves in a chunk until its backward pass, but for the loss."""
    kept = activations.embedding(sizes) if chunk.is_first else 0
    selective = sizes.recompute == "selective"
    whole = [activations.layer(sizes, has_experts=sparse, selective=selective) for sparse in chunk.layers]
    if sizes.recompute != "full":
        return kept + sum(whole)
    inputs = activations.checkpointed(sizes)
    if sizes.recompute_method == "block":  # the first so many layers, one by one; the others as they are
        count = min(sizes.recompute_layers, len(whole))
        return kept + count * inputs + sum(whole[count:])
    return kept + -(-len(whole) // sizes.recompute_layers) * inputs


def recomputed_by(sizes: Sizes, chunk: Chunk) -> int:
    """What one recomputation brings back at a time, less what the backward pass has freed before it."""
    if not chunk.layers:
        return 0
    whole = [activations.layer(sizes, has_experts=sparse) for sparse in chunk.layers]
    if sizes.recompute == "selective":
        return max(whole) - min(
            activations.layer(sizes, has_experts=sparse, selective=True)
            for sparse, size in zip(chunk.layers, whole, strict=True)
            if size == max(whole)
        )
    if sizes.recompute != "full":
        return 0
    if sizes.recompute_method == "block":  # by then the others have gone
        return max(0, max(whole[: sizes.recompute_layers]) - sum(whole[sizes.recompute_layers :]))
    size = min(sizes.recompute_layers, len(whole))
    return max(sum(whole[start : start + size]) for start in range(0, len(whole), size))


def overhead(sizes: Sizes, passing: int) -> int:
    """What torch does not count: none on a CPU."""
    if sizes.on_cpu:
        return 0
    groups = sum(size > 1 for size in (sizes.tp, sizes.pp, sizes.cp, sizes.dp, sizes.ep))
    return CONTEXT + groups * GROUP + int(FRAGMENTS * passing)


def _gradients_on_their_way(sizes: Sizes, stage: Stage) -> int:
    """The largest matrix' gradient before it is added to the buffer, and those of the widest activations."""
    wide = sizes.ffn * sizes.tokens
    if stage.experts:
        wide = max(wide, sizes.expert_ffn * sizes.rows)
    flowing = wide * (2 if sizes.is_gated else 1) + 2 * sizes.narrow_tokens * sizes.hidden
    return (stage.largest + flowing) * sizes.element


def _shards(sizes: Sizes, stage: Stage) -> tuple[int, int]:
    if not sizes.is_sharded:
        return stage.trained, stage.trained_experts
    return stage.trained // (sizes.dp * sizes.cp), stage.trained_experts // sizes.expert_dp


def _waiting(sizes: Sizes, stage: Stage) -> list[tuple[int, ...]]:
    return list(waiting(pp=sizes.pp, vpp=sizes.vpp, rank=stage.rank, micro_batches=sizes.micro_batches))
