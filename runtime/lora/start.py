"""From a model as Megatron builds it to one that trains adapters."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..megatron import load_weights
from .attach import attach
from .digest import digest_of
from .settings import Settings
from .state import save_adapters_only


def adapting(settings: Settings, checkpoint: Path | None) -> Callable[[Sequence[Any]], None]:
    """What makes the model chunks of a rank, which are built and not yet wrapped, train adapters.

    checkpoint: Megatron's, with the weights to be frozen; None where the chunks are filled already.
    """

    def adapt(chunks: Sequence[Any]) -> None:
        if checkpoint is not None:
            for chunk in chunks:
                load_weights(chunk, checkpoint)
        base = digest_of(chunks)
        for number, chunk in enumerate(chunks):
            save_adapters_only(chunk, number, attach(chunk, settings), base)

    return adapt
