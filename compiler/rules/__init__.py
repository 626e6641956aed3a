"""Rules that span several keys of a recipe: one small function per code, with the arithmetic in its message.

A rule looks at the resolved values, defaults included, and reports at the place in the recipe that its reader would
change. Rules do not know of each other; each reports at most what it alone can see.
"""

from collections.abc import Callable, Iterator

from ..diagnostics import Diagnostic
from ..loader import RecipeDocument
from ..plan import Plan
from . import answers, container, data, hooks, launch, lora, packing, parallel, schedule, shape, slurm, weights
from .context import Context

type Rule = Callable[[Context], Iterator[Diagnostic]]

RULES: tuple[Rule, ...] = (
    *shape.RULES,
    *parallel.RULES,
    *schedule.RULES,
    *data.RULES,
    *hooks.RULES,
    *answers.RULES,
    *packing.RULES,
    *weights.RULES,
    *lora.RULES,
    *launch.RULES,
    *slurm.RULES,
    *container.RULES,
)


def check_rules(plan: Plan, document: RecipeDocument) -> list[Diagnostic]:
    """What the values of `plan` get wrong together."""
    context = Context(plan=plan, document=document)
    return [diagnostic for rule in RULES for diagnostic in rule(context)]
