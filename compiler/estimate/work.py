"""How much a run computes, how long that may take and what it writes to disk."""

from dataclasses import dataclass

from ..hardware import Hardware
from ..lora import adapted, adapter_parameters
from ..parameters import MEGATRON_TOPK, parameters, raw_option
from ..plan import Plan
from .sizes import Sizes

# The share of a device's matrix rate that training reaches, pipeline bubbles aside: an assumption.
UTILIZATION = (0.25, 0.50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """FLOPs and tokens. Tokens count padding: as many positions as fit, so an upper bound.

    `flops_per_token` is what the model asks for; `flops_per_iteration` too, `executed_per_iteration` with what is
    recomputed. `trained_parameters` are all, or those of the adapters. `iterations` is None where epochs are asked for:
    the data is not prepared yet.
    """

    parameters: int
    active_parameters: int
    trained_parameters: int
    tokens_per_iteration: int
    flops_per_token: int
    flops_per_iteration: int
    executed_per_iteration: int
    bubble: float
    iterations: int | None

    @property
    def tokens(self) -> int | None:
        return None if self.iterations is None else self.iterations * self.tokens_per_iteration


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Seconds of an iteration in the best and the worst case of `UTILIZATION`; `rate` is a device's, of `units`."""

    units: str
    rate: float
    fastest: float
    slowest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Bytes of a checkpoint, and how many of them a run leaves; None where that is not known yet. With `is_pruned` one
    more is there while it is written, before an older one goes.
    """

    checkpoint: int
    count: int | None
    is_pruned: bool = False


def work_of(plan: Plan, sizes: Sizes) -> Work:
    """Matrix products only: a multiplication and an addition for each weight that a token meets, once forward and twice
    backward, 6 a weight; attention multiplies queries with keys, and scores with values, over half of the sequence,
    since it is causal: 6·s·q a layer. The embedding is looked up and costs nothing, the output layer counts padded.

    Source: Narayanan et al. (2021), appendix; `num_floating_point_operations` of megatron/training/training.py, which
    counts the same. Experts: those that a token visits. Frozen weights have no gradients of their own: 4 for each, and
    6 for each of the adapters'.
    """
    model = parameters(plan)
    vocabulary = sizes.vocab * sizes.tp * sizes.hidden
    weights = sum(layer.active - layer.norms for layer in model.layers)
    scores = sizes.layers * sizes.whole_length * (sizes.queries * sizes.tp)
    if sizes.latent:
        scores = sizes.layers * sizes.whole_length * (sizes.queries + sizes.values) * sizes.tp // 2
    per_token = 6 * (weights + vocabulary + scores)
    if plan["lora.rank"] is not None:
        per_token += 6 * _visited_adapters(plan) - 2 * (weights + vocabulary)
    again = {"full": 2 * (weights + scores), "selective": 2 * scores, None: 0}[sizes.recompute]
    if sizes.recompute == "full" and sizes.recompute_method == "block":
        again = again * min(sizes.recompute_layers * sizes.pp * sizes.vpp, sizes.layers) // sizes.layers
    tokens = plan["train.global_batch_size"] * plan["train.seq_length"]
    return Work(
        parameters=model.total,
        active_parameters=model.active,
        trained_parameters=adapter_parameters(plan) if plan["lora.rank"] is not None else model.total,
        tokens_per_iteration=tokens,
        flops_per_token=per_token,
        flops_per_iteration=per_token * tokens,
        executed_per_iteration=(per_token + again) * tokens,
        bubble=(sizes.pp - 1) / (sizes.micro_batches * sizes.vpp),
        iterations=plan["train.train_iters"],
    )


def _visited_adapters(plan: Plan) -> int:
    """Parameters of the adapters that a token passes through."""
    width, share = plan["lora.rank"], (plan["model.moe_router_topk"] or MEGATRON_TOPK, plan["model.num_experts"] or 1)
    own = adapted(plan)
    experts = sum(linear.adapter(width) for linear in own if linear.is_expert) * share[0] // share[1]
    return experts + sum(linear.adapter(width) for linear in own if not linear.is_expert)


def duration_of(plan: Plan, sizes: Sizes, work: Work, hardware: Hardware) -> Duration | None:
    """None where the device has no units for the run's precision. Idle time of a pipeline, (PP - 1) / (m·VPP) of the
    rest, comes on top (Narayanan et al., 2021, section 2.2); communication is part of the utilization.
    """
    units = "fp8" if raw_option(plan, "fp8") else "tf32" if plan["train.precision"] == "fp32" else "bf16"
    rate = hardware.peak[units]
    if rate is None:
        return None
    whole = work.executed_per_iteration * (1 + work.bubble) / (sizes.world * rate)
    worst, best = UTILIZATION
    return Duration(units=units, rate=rate, fastest=whole / best, slowest=whole / worst)


def disk_of(plan: Plan, sizes: Sizes) -> Disk:
    """A `torch_dist` checkpoint holds every trained weight once, and of each its master copy and moments."""
    model = parameters(plan)
    padding = (sizes.vocab * sizes.tp - plan["model.vocab_size"]) * sizes.hidden * (2 if model.output else 1)
    saved = adapter_parameters(plan) if plan["lora.rank"] is not None else model.total + padding
    size = saved * (sizes.element + sizes.master + sizes.moments)
    iterations, interval = plan["train.train_iters"], plan["checkpoint.save_interval"]
    # One every so many iterations, and one after the last.
    count = None if iterations is None else -(-iterations // (interval or iterations))
    keep = plan["checkpoint.keep"]
    if keep is not None and (count is None or keep < count):
        return Disk(checkpoint=size, count=keep, is_pruned=True)
    return Disk(checkpoint=size, count=count)
