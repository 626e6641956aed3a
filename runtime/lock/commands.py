"""What `sftc lock` asks for. Loaded by name, by the command line."""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError
from ..progress import complain
from .make import make_lock
from .verify import differences

__all__ = ["differences", "lock"]


def lock(value: Callable[[str], Any], template: str | None) -> Mapping[str, Any] | None:
    """The lock of the inputs as they are now; None for a problem, which has been told on stderr."""
    try:
        return make_lock(value, template)
    except UserError as error:
        complain(error)
        return None
