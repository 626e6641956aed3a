"""`sftc lock`: what the runtime finds of a plan's inputs, and the file. Neither prints nor exits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import builddir
from .plan import Plan
from .reach import reach
from .render import to_json


def make(plan: Plan) -> Mapping[str, Any] | None:
    """The lock of the inputs of `plan` as they are now; None for a problem, which has been told."""
    lock: Mapping[str, Any] | None = reach("lock").lock(plan.__getitem__, plan.chat_template)
    return lock


def differences(lock: Mapping[str, Any], plan: Plan) -> list[str]:
    """How the inputs are not what `lock` holds."""
    return list(reach("lock").differences(lock, plan.__getitem__, plan.chat_template))


def write(path: Path, lock: Mapping[str, Any]) -> bool:
    """Write the lock unless it is there already; whether it was written. OSError."""
    content = to_json(lock)
    if path.is_file() and path.read_bytes() == content:
        return False
    builddir.write_file(path, content)
    return True
