"""The sizes of a model, by the words that the tables of this package use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """All in elements; `experts` is 0 for a dense model."""

    layers: int
    hidden: int
    heads: int
    groups: int
    head: int
    ffn: int
    expert_ffn: int
    experts: int
    vocab: int

    @property
    def query(self) -> int:
        return self.heads * self.head

    @property
    def key(self) -> int:
        """Of the keys, and of the values."""
        return self.groups * self.head

    @staticmethod
    def of(value: Callable[[str], Any]) -> "Sizes":
        """From the plan's values, by key."""
        return Sizes(
            layers=value("model.num_layers"),
            hidden=value("model.hidden_size"),
            heads=value("model.num_attention_heads"),
            groups=value("model.num_query_groups"),
            head=value("model.kv_channels"),
            ffn=value("model.ffn_hidden_size"),
            expert_ffn=value("model.moe_ffn_hidden_size") or value("model.ffn_hidden_size"),
            experts=value("model.num_experts") or 0,
            vocab=value("model.vocab_size"),
        )
