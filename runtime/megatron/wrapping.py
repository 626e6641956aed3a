"""Functions of Megatron that others call by name, replaced by ones that do something around them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

from ..errors import UserError

_replaced: list[tuple[ModuleType, str, Any]] = []


def wrap_function(
    module: ModuleType,
    name: str,
    needed: Sequence[str],
    around: Callable[[Mapping[str, Any], Callable[[], Any]], Any],
) -> None:
    """Let calls of `module.name` go through `around(arguments by name, run)`, which calls `run()` for the original.

    `needed` are the parameters that `around` reads; UserError if this version of Megatron has them not.
    """
    original = getattr(module, name)
    signature = inspect.signature(original)
    if missing := [parameter for parameter in needed if parameter not in signature.parameters]:
        raise UserError(f"this Megatron's {name}() takes no `{missing[0]}`", help="use a released version")

    @wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(signature.bind(*args, **kwargs).arguments, lambda: original(*args, **kwargs))

    _replaced.append((module, name, original))
    setattr(module, name, wrapper)


def unwrap_functions() -> None:
    """Put back what `wrap_function` has replaced: what listened to an attempt that has failed is of the past."""
    while _replaced:
        module, name, original = _replaced.pop()
        setattr(module, name, original)
