"""What the CPU device does in fewer steps than torch and Megatron gives the same bits."""

import tempfile
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from sftc.runtime import cpu, lean  # noqa: E402
from sftc.runtime.norms import RMSNorm  # noqa: E402

SHAPES = [(80, 32, 128), (7, 3, 96), (5, 64)]


def numbers(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def with_gradients(function: Callable[..., Any], *inputs: Any) -> list[Any]:
    """What it returns, and the gradients of its inputs for one that is no constant."""
    out = function(*inputs)
    grads = torch.autograd.grad(out, inputs, numbers(*out.shape, seed=9).detach())
    return [out.detach(), *grads]


def same_bits(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_residual", [False, True])
def test_the_norm_is_torchs(shape: tuple[int, ...], has_residual: bool) -> None:
    """With a residual three gradients meet, whose sum depends on their order."""
    rows, weight = numbers(*shape), numbers(shape[-1], seed=1)

    def beside(norm: Callable[..., Any]) -> Callable[..., Any]:
        # what goes into a layer is the output of another one
        return lambda x, w: (lambda y: (y + norm(y, w).sin()) if has_residual else norm(y, w))(x * 2)

    ours = beside(lambda x, w: lean.rms_norm(x, w, 1e-5))
    torchs = beside(lambda x, w: F.rms_norm(x, x.shape[-1:], w, 1e-5))
    assert same_bits(with_gradients(ours, rows, weight), with_gradients(torchs, rows, weight))


def test_a_frozen_norm_has_no_gradient() -> None:
    rows, weight = numbers(4, 8), numbers(8).detach()
    (grad,) = torch.autograd.grad(lean.rms_norm(rows, weight, 1e-5).sum(), rows)
    (wanted,) = torch.autograd.grad(F.rms_norm(rows, (8,), weight, 1e-5).sum(), rows)
    assert torch.equal(grad, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_layer_takes_the_norm_for_what_it_can_do(dtype: Any) -> None:
    norm = RMSNorm(SimpleNamespace(params_dtype=dtype, sequence_parallel=False), 8)
    rows = numbers(4, 8).detach().to(dtype)
    assert torch.equal(norm(rows), torch.nn.RMSNorm(8, eps=1e-5, dtype=dtype)(rows))


@pytest.mark.parametrize("shape", SHAPES)
def test_swiglu_is_the_product_of_its_parts(shape: tuple[int, ...]) -> None:
    def by_hand(x: Any) -> Any:
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate) * up

    x = numbers(*shape)
    assert same_bits(with_gradients(lean.swiglu, x), with_gradients(by_hand, x))


@pytest.fixture
def rope() -> Iterator[Any]:
    """Megatron's module, whose functions are put back."""
    pytest.importorskip("megatron.core")
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.transformer.mlp import MLP

    rotate, forward = rope_utils._apply_rotary_pos_emb_bshd, MLP.forward
    rope_utils._apply_rotary_pos_emb_bshd = getattr(rotate, "__wrapped__", rotate)
    MLP.forward = getattr(forward, "__wrapped__", forward)
    yield rope_utils
    rope_utils._apply_rotary_pos_emb_bshd, MLP.forward = rotate, forward


# the last are layouts that stay Megatron's: part of a head is rotated, or neighbours are pairs
@pytest.mark.parametrize(("width", "options"), [(32, {}), (32, {"mscale": 1.3}), (16, {})])
@pytest.mark.parametrize("is_interleaved", [False, True])
def test_the_rotation_is_megatrons(rope: Any, width: int, options: dict[str, Any], is_interleaved: bool) -> None:
    from sftc.runtime.megatron.lean_layers import use_lean_layers

    angles = numbers(24, 1, 1, width, seed=2).detach()
    heads = numbers(24, 3, 4, 32)

    def rotated(x: Any) -> Any:
        return rope._apply_rotary_pos_emb_bshd(x, angles, rotary_interleaved=is_interleaved, **options)

    wanted = with_gradients(rotated, heads)
    use_lean_layers()
    assert hasattr(rope._apply_rotary_pos_emb_bshd, "__wrapped__")
    assert same_bits(with_gradients(rotated, heads), wanted)


class Linear(torch.nn.Module):  # type: ignore[misc]
    """Megatron's interface: a bias is returned, not added."""

    def __init__(self, factor: float, bias: Any) -> None:
        super().__init__()
        self.factor, self.bias = factor, bias

    def forward(self, x: Any) -> Any:
        return x * self.factor, self.bias


USUAL = {
    "gated_linear_unit": True,
    "activation_func": F.silu,
    "glu_linear_offset": 0.0,
    "activation_func_clamp_value": None,
    "bias_activation_fusion": False,
    "use_te_activation_func": False,
}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"activation_func": F.gelu},
        {"gated_linear_unit": False},
        {"glu_linear_offset": 1.0},
        {"activation_func_clamp_value": 0.5},
    ],
)
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_mlp_is_megatrons(rope: Any, changed: dict[str, Any], has_bias: bool) -> None:
    assert rope
    from megatron.core.transformer.mlp import MLP

    from sftc.runtime.megatron.lean_layers import use_lean_layers

    bias = numbers(64, seed=3).detach() if has_bias else None
    config = SimpleNamespace(**USUAL | changed)
    layer = SimpleNamespace(
        config=config,
        activation_func=config.activation_func,
        linear_fc1=Linear(1.0, bias),
        linear_fc2=Linear(3.0, None),
    )

    def forward(x: Any) -> Any:
        return MLP.forward(layer, x)[0]

    rows = numbers(6, 2, 64)
    wanted = with_gradients(forward, rows)
    use_lean_layers()
    assert same_bits(with_gradients(forward, rows), wanted)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A world of one rank, which nothing was called in."""
    with tempfile.TemporaryDirectory() as folder:
        store = torch.distributed.FileStore(f"{folder}/store", 1)
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        for name in ("_all_reduce", "_barrier"):
            monkeypatch.setattr(cpu, name, lambda *_: pytest.fail("gloo was asked"))
        yield
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_one_rank_has_nobody_to_talk_to() -> None:
    tensor = torch.tensor([1.0, 2.0])
    assert cpu.all_reduce(tensor) is None
    assert cpu.all_reduce(tensor, torch.distributed.ReduceOp.MAX, None, True).wait()
    assert cpu.all_reduce(tensor, op=torch.distributed.ReduceOp.SUM, async_op=True).is_completed()
    assert (cpu.barrier(), cpu.barrier(async_op=True).wait()) == (None, True)
    assert tensor.tolist() == [1.0, 2.0]


def test_several_ranks_have(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda _: 2)
    monkeypatch.setattr(cpu, "_all_reduce", lambda *call: calls.append(call))
    monkeypatch.setattr(cpu, "_barrier", lambda *call: calls.append(call))
    cpu.all_reduce(1, group="tp", async_op=True)
    cpu.barrier("dp")
    assert calls == [(1, torch.distributed.ReduceOp.SUM, "tp", True), ("dp", False)]
