"""What the command line says about an import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .flag import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Values for the source's variables, values of the recipe, and the kind of task.

    `root` is a checkout of Primus; `output` is what reports call the recipe.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    task: Kind | None = None
    root: Path | None = None
    output: str = "<recipe>"
