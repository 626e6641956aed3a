"""The last step of a model chunk, from its output layer to the losses, computed by `linear_cross_entropy`."""

from dataclasses import dataclass
from functools import wraps
from typing import Any


@dataclass(frozen=True, slots=True)
class Unmultiplied:
    """What the output layer returns in the place of logits: what would be multiplied."""

    hidden: Any
    weight: Any


def fuse_loss(chunk: Any) -> None:
    """Let `chunk`, one of the last pipeline stage, return the losses of its labels without computing its logits.

    Megatron multiplies in `output_layer` and passes the logits on to `compute_language_model_loss`, in every release
    that is supported. Between the two nothing looks at them. Without labels all is as before.
    """
    from ..linear_cross_entropy import token_losses

    layer, finish = chunk.output_layer, chunk._postprocess
    multiply, from_logits = layer.forward, chunk.compute_language_model_loss
    asked: list[Any] = []  # the loss mask, while losses are asked for

    @wraps(multiply)
    def held(hidden: Any, weight: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not asked:
            return multiply(hidden, weight, *args, **kwargs)
        return Unmultiplied(hidden, layer.weight if weight is None else weight), None

    @wraps(from_logits)
    def losses(labels: Any, logits: Any) -> Any:
        if not isinstance(logits, Unmultiplied):
            return from_logits(labels, logits)
        return token_losses(
            logits.hidden,
            logits.weight,
            labels,
            asked[0],
            group=layer.tp_group,
            sequence_parallel=layer.sequence_parallel,
        )

    @wraps(finish)
    def postprocess(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("labels") is None:
            return finish(*args, **kwargs)
        asked.append(kwargs.get("loss_mask"))
        try:
            return finish(*args, **kwargs)
        finally:
            asked.clear()

    layer.forward, chunk.compute_language_model_loss, chunk._postprocess = held, losses, postprocess
