"""Where an export takes the Hugging Face tensors of each row of the table from: a checkpoint, or another model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from safetensors import safe_open

from ..errors import UserError
from ..lora.digest import BASE
from ..megatron.saved import SavedModel
from .check import Model
from .cuts import cut, shape_of
from .sizes import Sizes
from .tables import TIED_OUTPUT, Row, places

type Place = Mapping[str, Any]
# The tensors that a row is made of, for a place: `{layer}` and `{expert}`.
type Parts = Callable[[Row, Place], list[torch.Tensor]]


def wanted(rows: Sequence[Row], sizes: Sizes) -> list[tuple[Row, Place]]:
    """Every tensor of Megatron's that makes some of a Hugging Face model, in the order of the layers."""
    found: list[tuple[Row, Place]] = [
        (row, place) for row in rows if row is not TIED_OUTPUT for place in places(row, sizes.layers, sizes.experts)
    ]
    found.sort(key=lambda entry: entry[1].get("layer", -1 if entry[0] is rows[0] else sizes.layers))
    return found


def saved_parts(saved: SavedModel, rows: Sequence[Row], sizes: Sizes) -> Parts:
    """From a checkpoint of all weights. UserError if it lacks one, or has one that no row has."""
    used = {_find(saved, row, place)[0] for row, place in wanted(rows, sizes)}
    used |= {name for name in TIED_OUTPUT.names if TIED_OUTPUT in rows}
    if left := sorted(name for name in saved.names - used if not is_no_weight(name)):
        raise UserError(
            f"`{saved.folder}` holds {len(left)} tensors that the Hugging Face model has no place for, such as "
            f"`{left[0]}`"
        )
    return lambda row, place: take_apart(saved.read(*_find(saved, row, place)), row, sizes)


@contextmanager
def given_parts(model: Model) -> Iterator[Parts]:
    """From a Hugging Face model, as it is."""
    with ExitStack() as stack:
        files = {
            file: stack.enter_context(safe_open(file, framework="pt"))
            for file in {tensor.file for tensor in model.tensors.values()}
        }

        def parts(row: Row, place: Place) -> list[torch.Tensor]:
            names = [name.format(**place) for name, _ in row.parts]
            return [files[model.tensors[name].file].get_tensor(name) for name in names]

        yield parts


def take_apart(whole: torch.Tensor, row: Row, sizes: Sizes) -> list[torch.Tensor]:
    """Megatron's tensor → the Hugging Face tensors that it is made of, without the padding of the vocabulary.

    A tensor that is cut along the same axis and has another width is taken apart as well.
    """
    padded = whole.shape[0] if row.layout == "vocabulary" else None
    pieces, offset = cut(row, sizes, padded_vocab=padded), 0
    shapes = [list(whole.shape) for _ in row.parts]
    for part, shape in enumerate(shapes):
        shape[pieces.axis] = shape_of(row, part, sizes)[pieces.axis]
    parts = [whole.new_empty(shape) for shape in shapes]
    for piece in pieces.pieces:
        if piece.part is not None:
            source = whole.narrow(pieces.axis, offset, piece.length)
            parts[piece.part].narrow(pieces.axis, piece.start, piece.length).copy_(source)
        offset += piece.length
    assert offset == whole.shape[pieces.axis], row.names[0]
    return parts


def trained_dtype(saved: SavedModel) -> torch.dtype:
    """That of the weights in a checkpoint."""
    return saved.dtype(min(name for name in saved.names if not is_no_weight(name)))


def is_no_weight(name: str) -> bool:
    return name.startswith(("rng_state", "rerun_state")) or "_extra_state" in name or name == BASE


def _find(saved: SavedModel, row: Row, place: Place) -> tuple[str, tuple[int, ...]]:
    for name in row.names:
        if found := saved.find(name, dict(place)):
            return found
    raise UserError(
        f"`{saved.folder}` has no `{row.names[-1].format(**place)}`", help="is it a checkpoint of this run's model?"
    )
