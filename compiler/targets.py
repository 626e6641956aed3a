"""What one target has and another lacks: the recipe keys and options that only some Megatron versions know.

Every statement is read off the option tables; which option became which is the table `renamed.json`, old name → new.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from .diagnostics import Diagnostic
from .loader import RecipeDocument
from .options import option_table, problem
from .plan import Argument, Plan
from .rules.context import Context
from .schemas import load_schema, recipe_schema
from .suggest import closest


@cache
def targets() -> tuple[str, ...]:
    """Every target that a recipe may name, oldest first."""
    return tuple(recipe_schema()["properties"]["megatron"]["properties"]["target"]["enum"])


def missing(target: str, option: str) -> tuple[str, str | None]:
    """What is wrong with an `option` that `target` lacks, and the remedy."""
    message = f"Megatron {target} has no option `{option}`"
    having = [other for other in targets() if option in option_table(other)]
    if not having:
        guess = closest(option, list(option_table(target)))
        return message, f"did you mean `{_bare(guess)}`?" if guess else None
    message += f"; {' and '.join(having)} {'has' if len(having) == 1 else 'have'} it"
    if name := _name_in(target, option):
        return message, f"Megatron {target} calls it `{_bare(name)}`"
    return message, f'leave it out, or set `megatron.target: "{having[-1]}"`'


def taken_elsewhere(option: str, values: tuple[Any, ...]) -> str | None:
    """The remedy for `values` that the target's option does not take, if another target's does."""
    taking = [
        target
        for target in targets()
        if (known := option_table(target).get(option)) and problem(known, option, values) is None
    ]
    return f'Megatron {" and ".join(taking)} can: set `megatron.target: "{taking[-1]}"`' if taking else None


def check_keys(plan: Plan, document: RecipeDocument, arguments: Iterable[Argument]) -> Iterator[Diagnostic]:
    """Recipe keys whose option, or whose value, the target does not know. `arguments` are those of the keys."""
    context, target = Context(plan=plan, document=document), plan["megatron.target"]
    for argument in arguments:
        key, name = argument.key, argument.option
        assert key is not None
        if (option := option_table(target).get(name)) is None:
            message, remedy = missing(target, name)
            yield context.error("SFTC501", key, f"`{key}`: {message}", help=remedy)
        elif argument.values and (text := problem(option, name, (plan[key],))):
            yield context.error("SFTC503", key, f"`{key}`: {text}", help=taken_elsewhere(name, (plan[key],)))


def _name_in(target: str, option: str) -> str | None:
    """What `target` calls an option that others call `option`."""
    for names in load_schema("megatron/renamed.json").items():
        if option in names:
            return next((name for name in names if name in option_table(target)), None)
    return None


def _bare(option: str) -> str:
    """An option as `megatron.args` spells it."""
    return option.removeprefix("--").replace("-", "_")
