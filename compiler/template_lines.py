"""Which line of a template a line of an artifact was rendered from, and which values it shows or depends on.

Works on the texts alone: a template's line is a pattern in which every expression may be anything. Lines of a loop are
found again and again.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from .hooks import step_hooks
from .render import template_text

_EXPRESSION = re.compile(r"\{\{(.*?)\}\}")
_STATEMENT = re.compile(r"\{%-?\s*(\w+)(.*?)-?%\}")
_VALUE = re.compile(r'value\["([^"]+)"\]')
_HOOK = re.compile(r"\bhooks\.\w+")
# What templates are given besides values, and the keys that it follows from.
_NAMES = {
    "name": ("name",),
    "supervised": ("data.loss_on",),
    "validates": ("data.valid_data_path", "data.valid_fraction"),
    "weights": ("data.sources",),
    "pad_to": (
        "parallel.context_parallel_size",
        "parallel.sequence_parallel",
        "parallel.tensor_model_parallel_size",
    ),
    "task": ("task.kind",),
    "port": ("name",),
    "last_group": ("launch.slurm.groups",),
    "container": ("launch.container.engine",),
    "has_rows": ("data.train_data_path", "data.sources"),
    "has_hooks": tuple(f"hooks.{name}" for name in step_hooks()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateLine:
    """`shown` are the keys of the values in the line, `needed` those that decided whether it is there."""

    number: int
    pattern: re.Pattern[str]
    fixed: int  # characters that are no expression
    shown: tuple[str, ...]
    needed: tuple[str, ...]


def match_lines(template: str, text: str) -> list[TemplateLine | None]:
    """For each line of `text` the line of `template` (such as `launch.sh`) it came from; None where none fits."""
    lines = _lines(template)
    found: list[TemplateLine | None] = []
    last = 0
    for line in text.splitlines():
        fitting = [one for one in lines if one.pattern.fullmatch(line)]
        # The most literal one; of equals the next one further down, or else of a loop the one before.
        best = max(fitting, key=lambda one: (one.fixed, one.number > last, -one.number), default=None)
        last = best.number if best else last
        found.append(best)
    return found


@cache
def _lines(template: str) -> tuple[TemplateLine, ...]:
    return tuple(_read(template_text(template)))


def _read(text: str) -> Iterator[TemplateLine]:
    conditions: list[tuple[str, ...]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if statement := _STATEMENT.fullmatch(line.strip()):
            word, rest = statement.groups()
            if word in ("if", "for"):
                conditions.append(_keys(rest))
            elif word in ("endif", "endfor"):
                conditions.pop()
            continue
        pieces = _EXPRESSION.split(line)
        pattern = "".join(".*" if index % 2 else re.escape(piece) for index, piece in enumerate(pieces))
        yield TemplateLine(
            number=number,
            pattern=re.compile(pattern),
            fixed=sum(map(len, pieces[::2])),
            shown=tuple(key for piece in pieces[1::2] for key in _keys(piece)),
            needed=tuple(dict.fromkeys(key for keys in conditions for key in keys)),
        )


def _keys(expression: str) -> tuple[str, ...]:
    keys = [*_VALUE.findall(expression), *_HOOK.findall(expression)]
    words = re.findall(r"[a-z_]+", re.sub(r'"[^"]*"|\|\w+|\.\w+', "", expression))
    keys += [key for word in words for key in _NAMES.get(word, ())]
    return tuple(dict.fromkeys(keys))
