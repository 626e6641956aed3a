"""What to change in a recipe whose run does not fit, found by estimating the changed plan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..diagnostics import has_errors
from ..loader import RecipeDocument
from ..plan import FromRecipe, Plan, Resolved
from ..resolve import DERIVATIONS
from ..rules import check_rules
from . import Estimate, estimate

TP, PP = "parallel.tensor_model_parallel_size", "parallel.pipeline_model_parallel_size"
CP, EP = "parallel.context_parallel_size", "parallel.expert_model_parallel_size"
DEPENDENT = ("launch.world_size", "parallel.data_parallel_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Values by recipe key, and what the fullest rank would then need, in bytes."""

    changes: Mapping[str, Any]
    needs: int

    def __str__(self) -> str:
        return ", ".join(f"`{key.rpartition('.')[2]}: {_as_yaml(value)}`" for key, value in self.changes.items())


def advise(found: Estimate, document: RecipeDocument) -> list[Advice]:
    """Changes after which the run fits: the single ones, or else the shortest sequence that does; empty if none does.

    Cheap ones come first: those that cost no speed, then recomputation, then more model parallelism.
    """
    if found.fits is not False:
        return []
    single = [advice for changes in _steps(found.plan) if (advice := _tried(found, document, changes))]
    fitting = [advice for advice in single if advice.needs <= (found.limit or 0)]
    return fitting[:3] or _together(found, document)


def _together(found: Estimate, document: RecipeDocument) -> list[Advice]:
    plan, changes = found.plan, dict[str, Any]()
    best = found.fullest.total
    while True:
        for step in _steps(plan):
            advice = _tried(found, document, {**changes, **step})
            if advice is not None and advice.needs < best:
                changes, best = dict(advice.changes), advice.needs
                plan = changed(found.plan, changes)
                break
        else:
            return []
        if best <= (found.limit or 0):
            return [Advice(changes=changes, needs=best)]


def _tried(found: Estimate, document: RecipeDocument, changes: Mapping[str, Any]) -> Advice | None:
    plan = changed(found.plan, changes)
    if has_errors(check_rules(plan, document)):
        return None
    return Advice(changes=changes, needs=estimate(plan, hardware=found.hardware, limit=found.limit).fullest.total)


def _steps(plan: Plan) -> Iterator[dict[str, Any]]:
    tp, pp, cp, ep = (plan[key] for key in (TP, PP, CP, EP))
    world, per_node = plan["launch.world_size"], plan["launch.nproc_per_node"]
    replicas = plan["parallel.data_parallel_size"]
    if plan["train.optimizer"] == "adam" and not plan["parallel.use_distributed_optimizer"] and replicas * cp > 1:
        yield {"parallel.use_distributed_optimizer": True}
    if tp > 1 and not plan["parallel.sequence_parallel"]:
        yield {"parallel.sequence_parallel": True}
    if not plan["train.fused_linear_cross_entropy"]:
        yield {"train.fused_linear_cross_entropy": True}
    if plan["train.micro_batch_size"] > 1:
        yield {"train.micro_batch_size": plan["train.micro_batch_size"] // 2}
    if plan["train.recompute_granularity"] != "full":
        yield {
            "train.recompute_granularity": "full",
            "train.recompute_method": "uniform",
            "train.recompute_num_layers": 1,
        }
    if plan["model.num_experts"] and ep * 2 <= world // (tp * pp):
        yield {EP: ep * 2}
    if tp * 2 <= per_node and replicas % 2 == 0:
        yield {TP: tp * 2, "parallel.sequence_parallel": True}
    if replicas % 2 == 0:
        yield {PP: pp * 2}
        yield {CP: cp * 2}


def changed(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    """The plan with other values, as if the recipe had said so, and what follows from them."""
    values = dict(plan.values)
    for key, value in changes.items():
        values[key] = Resolved(value=value, origin=FromRecipe())
    for derivation in DERIVATIONS:
        if derivation.key in DEPENDENT:
            value = derivation.compute(*(values[key].value for key in derivation.inputs))
            values[derivation.key] = replace(values[derivation.key], value=value)
    return replace(plan, values=values)


def _as_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
