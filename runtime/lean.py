"""Parts of a layer that pass over their memory less often than what torch composes of its own functions.

On a CPU a small model spends most of its time outside matrix products in such passes. Each function here does the same
operations on each number in the same order as the composition that it replaces, so its results are the same bits.
"""

from typing import Any

import torch
import torch.nn.functional as F

type Tensor = torch.Tensor


def rms_norm(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    """torch's rms_norm over the last axis, of float32 or float64. [..., h], [h] → [..., h]."""
    # given twice, since two gradients flow into the rows: their sum with a residual's depends on the order
    return _RMSNorm.apply(rows, rows, weight, eps)  # type: ignore[no-any-return]


def swiglu(gate_and_up: Tensor) -> Tensor:
    """silu(gate) * up; the halves of the last axis are gate and up. [..., 2·f] → [..., f]."""
    return _SwiGLU.apply(gate_and_up)  # type: ignore[no-any-return]


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding with halves as pairs. [s, ..., d], and cos and sin [s, 1..., d] of the angles → [s, ..., d]."""
    return _Rotation.apply(heads, cos, sin)  # type: ignore[no-any-return]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, _: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = rows.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
        normed = rows * scale
        ctx.save_for_backward(rows, weight, scale, normed)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        rows, weight, scale, normed = ctx.saved_tensors
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = (grads[0] * normed).sum(tuple(range(rows.dim() - 1)))
        grad = grads[0] * weight
        straight = grad * scale
        # through the scale: of rsqrt -g·r³/2, of the mean 1/h, of the square 2·x
        of_scale = -0.5 * grad.mul_(rows).sum(-1, keepdim=True) * scale.pow(3)
        return straight, torch.mul(rows, of_scale / rows.shape[-1] * 2, out=grad), grad_weight, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_and_up: Tensor) -> Tensor:
        gate, up = gate_and_up.chunk(2, -1)
        opened = F.silu(gate)
        ctx.save_for_backward(gate_and_up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        gate_and_up, opened = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, -1)
        # both gradients go where they belong: autograd would make two and join them by a copy
        whole = torch.empty_like(gate_and_up)
        of_gate, of_up = whole.chunk(2, -1)
        torch.mul(grads[0], opened, out=of_up)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=of_gate)
        return whole


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        half = heads.shape[-1] // 2
        turned = heads * cos
        turned[..., :half] -= heads[..., half:] * sin[..., :half]
        turned[..., half:] += heads[..., :half] * sin[..., half:]
        return turned

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        grad, half = grads[0], grads[0].shape[-1] // 2
        back = grad * cos
        back[..., :half] += grad[..., half:] * sin[..., half:]
        back[..., half:] -= grad[..., :half] * sin[..., :half]
        return back, None, None
