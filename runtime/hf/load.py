"""The weights of one rank, copied slice by slice out of memory-mapped files into Megatron's parameters.

Host memory holds the pages of one slice at a time, whatever the size of the model.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..errors import UserError
from ..megatron import Slot
from .check import Model
from .cuts import cut
from .tables import Row

BLOCK = 1 << 20  # values that are looked at together


def loader(model: Model) -> Callable[[Sequence[Slot]], None]:
    """What fills the parameters of a rank with `model`. It raises UserError if one has no tensor in the table."""
    known = patterns(model.rows)

    def fill(slots: Sequence[Slot]) -> None:
        found = [(slot, match(slot.name, known)) for slot in slots]
        if strangers := sorted(slot.name for slot, place in found if place is None):
            raise UserError(
                f"{len(strangers)} parameters of Megatron's model have no Hugging Face tensor, such as "
                f"`{strangers[0]}`: they would stay random",
                help="leave out the option of `megatron.args` that adds them, or load a Megatron checkpoint",
            )
        with ExitStack() as stack, torch.no_grad():
            files: dict[Path, Any] = {}
            for tensor in model.tensors.values():
                if tensor.file not in files:
                    files[tensor.file] = stack.enter_context(safe_open(tensor.file, framework="pt"))
            for slot, place in found:
                assert place is not None
                _fill(slot, *place, model, files)

    return fill


def patterns(rows: Sequence[Row]) -> list[tuple[re.Pattern[str], Row]]:
    """What the names of parameters are matched with."""
    return [(_pattern(name), row) for row in rows for name in row.names]


def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name)
    for field in ("layer", "expert"):
        text = text.replace(rf"\{{{field}\}}", rf"(?P<{field}>\d+)")
    return re.compile(text)


def match(name: str, known: list[tuple[re.Pattern[str], Row]]) -> tuple[Row, dict[str, str]] | None:
    """The row of a parameter of Megatron's and the fields of its name; None if no row has it."""
    for pattern, row in known:
        if found := pattern.fullmatch(name):
            return row, found.groupdict()
    return None


def _fill(slot: Slot, row: Row, place: dict[str, str], model: Model, files: dict[Path, Any]) -> None:
    parameter = slot.parameter
    piece_of = cut(row, model.sizes, rank=slot.rank, size=slot.size, padded_vocab=parameter.shape[0] * slot.size)
    if parameter.is_meta or parameter.shape[piece_of.axis] != piece_of.length:
        raise UserError(
            f"Megatron's `{slot.name}` is {list(parameter.shape)} on rank {slot.rank} of {slot.size}, and its Hugging "
            f"Face tensors fill {piece_of.length} of axis {piece_of.axis}",
            help="leave out what changes the model's shape in `megatron.args`, or load a Megatron checkpoint",
        )
    offset = 0
    for piece in piece_of.pieces:
        target = parameter.narrow(piece_of.axis, offset, piece.length)
        offset += piece.length
        if piece.part is None:
            target.zero_()
            continue
        name = row.parts[piece.part][0].format(**place)
        whole = files[model.tensors[name].file].get_slice(name)
        chosen = slice(piece.start, piece.stop)
        values = whole[chosen] if piece_of.axis == 0 else whole[:, chosen]
        # by blocks: the test makes copies of what it looks at
        bad = sum(block.numel() - int(torch.isfinite(block).sum()) for block in values.reshape(-1).split(BLOCK))
        if bad:
            raise UserError(
                f"`{model.tensors[name].file}` holds {bad:,} values of `{name}` that are no finite numbers (NaN or "
                f"infinity), in the slice of rank {slot.rank} of {slot.size}",
                help="such weights train to nothing: download the model again",
            )
        target.copy_(values)
