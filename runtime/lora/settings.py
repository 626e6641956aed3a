"""The `lora` section of a plan."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`seed` is that of the first matrices A."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    rslora: bool
    seed: int

    @staticmethod
    def of(value: Callable[[str], Any]) -> "Settings | None":
        """None for a run that trains all weights. `value` gives the plan's value of a key."""
        if value("lora.rank") is None:
            return None
        return Settings(
            rank=value("lora.rank"),
            alpha=value("lora.alpha"),
            dropout=value("lora.dropout"),
            targets=tuple(value("lora.targets")),
            rslora=value("lora.rslora"),
            seed=value("train.seed"),
        )

    @property
    def scale(self) -> float:
        """What B·A·x is multiplied by: alpha / rank, or alpha / √rank (Kalajdzievski, "rsLoRA", 2023)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
