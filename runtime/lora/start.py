"""From a model as Megatron builds it to one that trains adapters, chunk by chunk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..megatron import load_weights
from .attach import attach
from .settings import Settings
from .state import digest_of, save_adapters_only


def adapting(settings: Settings, checkpoint: Path | None) -> Callable[[Sequence[Any]], None]:
    """What makes the model chunks of a rank, which are built and not yet wrapped, train adapters.

    checkpoint: Megatron's, with the weights to be frozen; None where the chunks are filled already.
    """

    def adapt(chunks: Sequence[Any]) -> None:
        for chunk in chunks:
            if checkpoint is not None:
                load_weights(chunk, checkpoint)
            base = digest_of(list(chunk.parameters()))
            save_adapters_only(chunk, attach(chunk, settings), base)

    return adapt
