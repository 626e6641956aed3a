"""The section `eval.generate` of a plan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`seed` is that of the draws; a `temperature` of 0 draws nothing. Without `top_k` and `top_p` all tokens count."""

    samples: int
    when: Literal["evaluation", "end"]
    max_new_tokens: int
    batch_size: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    answer_pattern: str | None
    metrics: tuple[str, ...]

    @staticmethod
    def of(value: Callable[[str], Any]) -> "Settings | None":
        """None for a run that generates no answers. `value` gives the plan's value of a key."""

        def ours(key: str) -> Any:
            return value(f"eval.generate.{key}")

        if ours("samples") is None:
            return None
        seed = ours("seed")
        return Settings(
            samples=ours("samples"),
            when=ours("when"),
            max_new_tokens=ours("max_new_tokens"),
            batch_size=ours("batch_size"),
            temperature=ours("temperature"),
            top_k=ours("top_k"),
            top_p=ours("top_p"),
            seed=value("train.seed") if seed is None else seed,
            answer_pattern=ours("answer_pattern"),
            metrics=tuple(ours("metrics")),
        )
