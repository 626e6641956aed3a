"""Which linears a recipe's `lora.targets` mean. Standard library only: the compiler asks the same of a plan."""

import re
from collections.abc import Iterable
from functools import cache

# The linears that can have an adapter, by the last part of Megatron's name.
LINEARS = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")


def is_target(name: str, targets: Iterable[str]) -> bool:
    """Whether one of `targets` means the linear `name`, such as `decoder.layers.0.self_attention.linear_qkv`.

    A target is the last part of the name, or a pattern for all of it in which `*` stands for anything, dots included,
    as in Megatron-Bridge; layers and experts are counted over the whole model, whatever the layout.
    """
    last = name.rpartition(".")[2]
    return last in LINEARS and any(last == target or _pattern(target).fullmatch(name) for target in targets)


@cache
def _pattern(target: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, target.split("*"))))
