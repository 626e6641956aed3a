"""What is ours in the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .compiled import compile_layers
from .head import fuse_loss
from .parameters import Slot, slots

type LayerSpec = Callable[..., Any]
type FirstWeights = Callable[[Sequence[Slot]], None]
type Adapt = Callable[[Sequence[Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is ours in the model, next to Megatron's arguments.

    layer_spec: what the layers are made of, called with Megatron's TransformerConfig and `vp_stage`; None for
    Megatron's own choice. first_weights: what fills the parameters of this rank once they are built, before DDP and
    the optimizer copy them; None for Megatron's random weights. adapt: what then makes the model chunks train something
    else than all their weights. variable_lengths: micro-batches differ in length. fused_loss: losses are computed
    without the logits of all tokens. compiled: layers go through torch's compiler. packed: rows share samples.
    """

    layer_spec: LayerSpec | None
    first_weights: FirstWeights | None
    adapt: Adapt | None
    variable_lengths: bool
    fused_loss: bool = False
    compiled: bool = False
    packed: bool = False

    def tells_lengths(self, args: Any) -> bool:
        """Whether pipeline stages tell each other the length of each micro-batch; no option of Megatron's."""
        return self.variable_lengths and args.pipeline_model_parallel_size > 1

    def finish(self, chunks: Sequence[Any]) -> None:
        """What is ours to do with model chunks of this rank once Megatron has built them, and before it wraps them."""
        if self.first_weights is not None:
            self.first_weights(list(slots(chunks)))
        if self.adapt is not None:
            self.adapt(chunks)
        if self.fused_loss:
            for chunk in chunks:
                if chunk.post_process:
                    fuse_loss(chunk)
        if self.compiled:
            compile_layers(chunks, packed=self.packed)
