"""What bounds an answer, and the tokens of one."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`new` tokens at most in an answer; `positions`: tokens that the model can see; `rows` at once; `vocab`: ids that
    the tokenizer knows; `seed` of what is drawn.
    """

    new: int
    positions: int
    rows: int
    vocab: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The tokens behind a prompt, the one that ends the turn included; `length` if the limit came before it."""

    tokens: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
