"""Whether the run fits the device that the recipe names. Looks at plans without errors only: the figures need sizes
that go together.
"""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from ..loader import RecipeDocument
from ..plan import Plan
from ..rules.context import Context
from . import estimate
from .advice import advise
from .text import gib


def check_memory(plan: Plan, document: RecipeDocument) -> Iterator[Diagnostic]:
    """A warning where the estimate exceeds the memory of `launch.hardware`: it is an estimate, so no error."""
    if plan["launch.hardware"] is None or plan["launch.device"] == "cpu":
        return
    found = estimate(plan)
    if found.fits:
        return
    assert found.limit is not None
    rank = found.fullest
    states = rank.weights + rank.gradients + rank.optimizer
    when = " when its optimizer steps" if rank.at_step else ""
    message = (
        f"a rank of stage {rank.stage} needs about {gib(rank.total)} GiB{when}, and {plan['launch.hardware']} has "
        f"{gib(found.limit)}: weights, gradients and optimizer({gib(states)}) + activations({gib(rank.activations)}) + "
        f"logits({gib(rank.logits)}) + workspace({gib(rank.workspace)}) + overhead({gib(rank.overhead)})"
    )
    tried = [f"{advice} would need {gib(advice.needs)} GiB" for advice in advise(found, document)]
    help = "\n".join([*tried, "`sftc estimate` shows every stage"])
    yield Context(plan=plan, document=document).warning("SFTC481", "launch.hardware", message, help=help)
