"""Normalisations out of torch that work under sequence parallelism (Megatron's wrapper of torch's refuses it).

Under sequence parallelism every tensor-parallel rank normalises its own part of the sequence with the same weight;
Megatron adds up the gradients of the parameters that carry the attribute `sequence_parallel`.
"""

from typing import Any

import torch

from .errors import UserError
from .lean import rms_norm


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm behind Megatron's builder interface. [..., hidden] → [..., hidden]."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        _mark(self, config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # a GPU has a kernel for it, torch's compiler makes one, and for narrower types torch's goes through float32
        in_float32 = x.is_cpu and x.dtype == self.weight.dtype == torch.float32
        if in_float32 and self.eps is not None and not torch.compiler.is_compiling():
            return rms_norm(x, self.weight, self.eps)
        return super().forward(x)


class LayerNorm(torch.nn.LayerNorm):
    """torch's LayerNorm behind Megatron's builder interface. [..., hidden] → [..., hidden]."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        _mark(self, config)


def norm_for(config: Any) -> type[RMSNorm] | type[LayerNorm]:
    """The class for Megatron's `--normalization`. UserError for what only Transformer Engine can do."""
    if config.layernorm_zero_centered_gamma or config.normalization not in ("RMSNorm", "LayerNorm"):
        raise UserError(
            f"torch-native norms are RMSNorm and LayerNorm around one, not `{config.normalization}`"
            + (" with zero-centred weights" if config.layernorm_zero_centered_gamma else ""),
            help="set `model.transformer_impl: transformer_engine`",
        )
    return RMSNorm if config.normalization == "RMSNorm" else LayerNorm


def _mark(norm: torch.nn.Module, config: Any) -> None:
    for parameter in norm.parameters():
        parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
