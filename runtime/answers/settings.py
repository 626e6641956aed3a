"""The section `eval.generate` of a plan."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import UserError


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

    @staticmethod
    def of_checkpoint(
        value: Callable[[str], Any], samples: int, *, max_new_tokens: int | None, answer_pattern: str | None
    ) -> "Settings":
        """What a checkpoint of the run is asked: as its recipe has it or, where that has nothing, by the defaults; what
        is not None comes first. Who gives a pattern wants to see the exact match.
        """
        try:
            found = Settings.of(value)
        except UserError:  # compiled by an sftc that knew of no answers
            found = None
        found = replace(found or Settings.usual(value, samples), samples=samples)
        if max_new_tokens is not None:
            found = replace(found, max_new_tokens=max_new_tokens)
        if answer_pattern is not None:
            metrics = found.metrics if "exact_match" in found.metrics else ("exact_match", *found.metrics)
            found = replace(found, answer_pattern=answer_pattern, metrics=metrics)
        return found

    @staticmethod
    def usual(value: Callable[[str], Any], samples: int) -> "Settings":
        """Of a run whose recipe has no such section: the defaults that it would have."""
        return Settings(
            samples=samples,
            when="end",
            max_new_tokens=256,
            batch_size=8,
            temperature=0.0,
            top_k=None,
            top_p=None,
            seed=value("train.seed"),
            answer_pattern=None,
            metrics=("exact_match", "token_accuracy", "perplexity"),
        )
