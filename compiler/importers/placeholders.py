"""`${VAR}` and `${VAR:default}` in the values of a Primus configuration. The environment is never looked at."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..scalars import resolve_plain

PLACEHOLDER = re.compile(r"\$\{([^:{}]+)(?::([^{}]*))?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """`missing` variables have no value, `defaulted` ones took their default, `used` ones were given."""

    value: Any
    missing: tuple[str, ...] = ()
    defaulted: tuple[str, ...] = ()
    used: tuple[str, ...] = ()


def expand(text: str, variables: Mapping[str, str]) -> Expanded:
    """`text` with its placeholders replaced. As in Primus, what then reads as a number is one."""
    missing: list[str] = []
    defaulted: list[str] = []
    used: list[str] = []

    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in variables:
            used.append(name)
            return variables[name]
        (missing if default is None else defaulted).append(name)
        return match[0] if default is None else default

    replaced = PLACEHOLDER.sub(replace, text)
    value: Any = replaced
    if replaced != text and not missing:
        plain, refusal = resolve_plain(replaced)
        value = replaced if refusal else plain
    return Expanded(value=value, missing=tuple(missing), defaulted=tuple(defaulted), used=tuple(used))
