"""Megatron's layers on a CPU: functions of `lean` where Megatron composes what only its CUDA kernels do in one pass."""

import importlib
from functools import wraps
from typing import Any

import torch.nn.functional as F
from torch.compiler import is_compiling

from .. import lean


def use_lean_layers() -> None:
    """Same numbers, same bits, fewer passes over memory; what `lean` has not stays Megatron's."""
    mlp: Any = importlib.import_module("megatron.core.transformer.mlp").MLP
    rope: Any = importlib.import_module("megatron.core.models.common.embeddings.rope_utils")
    if hasattr(mlp.forward, "__wrapped__"):
        return
    forward, rotate = mlp.forward, rope._apply_rotary_pos_emb_bshd

    @wraps(forward)
    def gated(self: Any, hidden_states: Any, per_token_scale: Any = None, **kwargs: Any) -> Any:
        """Megatron adds an offset of zero to one half, and autograd joins the gradients of both by a copy."""
        if per_token_scale is not None or not _is_swiglu(self.config) or is_compiling():
            return forward(self, hidden_states, per_token_scale, **kwargs)
        inner, bias = self.linear_fc1(hidden_states)
        return self.linear_fc2(lean.swiglu(inner if bias is None else inner + bias))

    @wraps(rotate)
    def rotated(heads: Any, angles: Any, *args: Any, mscale: float = 1.0, **layout: Any) -> Any:
        """Megatron makes a rotated copy, adds it, and copies the sum beside the part that is not rotated."""
        if args or any(layout.values()) or heads.shape[-1] != angles.shape[-1] or is_compiling():
            return rotate(heads, angles, *args, mscale=mscale, **layout)
        cos, sin = ((wave * mscale).to(heads.dtype) for wave in (angles.cos(), angles.sin()))
        return lean.rotate(heads, cos, sin)

    mlp.forward, rope._apply_rotary_pos_emb_bshd = gated, rotated


def _is_swiglu(config: Any) -> bool:
    return (
        config.gated_linear_unit
        and config.activation_func is F.silu
        and not config.glu_linear_offset
        and config.activation_func_clamp_value is None
        and not (config.bias_activation_fusion or config.use_te_activation_func)
    )
