"""One adapter at a time, in this process: its numbers, its first values, and what it hangs on."""

from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from sftc.runtime.lora.adapter import Adapter, GroupedAdapter, Place  # noqa: E402
from sftc.runtime.lora.attach import attach  # noqa: E402
from sftc.runtime.lora.settings import Settings  # noqa: E402
from sftc.runtime.lora.targets import is_target  # noqa: E402

SETTINGS = Settings(rank=4, alpha=8.0, dropout=0.0, targets=("linear_qkv",), rslora=False, seed=1234)
QKV = Place(
    name="decoder.layers.0.self_attention.linear_qkv",
    inputs=12,
    outputs=10,
    split="column",
    group=None,
    rank=0,
    size=1,
    is_expert=False,
    is_sequential=False,
    is_gated=False,
)


def adapter(settings: Settings = SETTINGS, place: Place = QKV, dtype: Any = torch.float64) -> Adapter:
    made = Adapter(settings, place, dtype, torch.device("cpu"))
    with torch.no_grad():
        made.b.normal_(generator=torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize(
    ("target", "name", "meant"),
    [
        ("linear_qkv", "decoder.layers.7.self_attention.linear_qkv", True),
        ("linear_qkv", "decoder.layers.7.self_attention.linear_proj", False),
        ("qkv", "decoder.layers.7.self_attention.linear_qkv", False),
        ("decoder.layers.*.self_attention.linear_qkv", "decoder.layers.7.self_attention.linear_qkv", True),
        ("*.layers.0.*.linear_qkv", "decoder.layers.0.self_attention.linear_qkv", True),
        ("*.layers.0.*.linear_qkv", "decoder.layers.10.self_attention.linear_qkv", False),
        ("*.layers.1.*", "decoder.layers.1.mlp.linear_fc2", True),
        ("*.layers.1.*", "decoder.layers.1.mlp.router", False),  # no linear that can have an adapter
        ("linear_fc1", "decoder.layers.1.mlp.experts.local_experts.3.linear_fc1", True),
        ("decoder.layers.1.mlp.linear_fc.", "decoder.layers.1.mlp.linear_fc1", False),  # a dot is a dot
    ],
)
def test_targets_are_read_as_megatron_bridge_does(target: str, name: str, meant: bool) -> None:
    assert is_target(name, [target]) is meant


def test_output_and_gradients_are_those_of_plain_torch() -> None:
    made = adapter()
    x = torch.randn(5, 3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    a, b, y = (tensor.detach().clone().requires_grad_() for tensor in (made.a, made.b, x))
    out, wanted = made(x), (y @ a.T @ b.T) * (8 / 4)
    weights = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (out * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(out, wanted)
    for found, expected in ((made.a, a), (made.b, b), (x, y)):
        torch.testing.assert_close(found.grad, expected.grad)


def test_it_adds_nothing_before_it_has_learnt() -> None:
    made = Adapter(SETTINGS, QKV, torch.float32, torch.device("cpu"))
    assert not made(torch.randn(7, 12)).any()


def test_rank_stabilized_scaling() -> None:
    assert (SETTINGS.scale, replace(SETTINGS, rslora=True).scale) == (2.0, 4.0)


def test_the_first_matrix_is_the_same_in_every_layout_and_another_for_each_linear() -> None:
    whole = adapter(place=replace(QKV, split="row")).a
    parts = [adapter(place=replace(QKV, split="row", rank=rank, size=2)).a for rank in range(2)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(adapter(place=replace(QKV, size=2, rank=1)).a, adapter().a)
    assert not torch.equal(adapter(place=replace(QKV, name="another")).a, adapter().a)
    assert not torch.equal(adapter(replace(SETTINGS, seed=1)).a, adapter().a)


def test_the_first_matrix_is_that_of_peft() -> None:
    """`init.kaiming_uniform_(A, a=√5)`: uniform within ±1/√inputs."""
    wide = Adapter(replace(SETTINGS, rank=64), replace(QKV, inputs=1024), torch.float32, torch.device("cpu")).a
    reference = torch.nn.init.kaiming_uniform_(torch.empty(64, 1024), a=5**0.5)
    assert float(wide.abs().max()) == pytest.approx(float(reference.abs().max()), rel=1e-3)
    assert float(wide.std()) == pytest.approx(float(reference.std()), rel=0.02)


def test_dropout_is_of_the_input_and_of_training_alone() -> None:
    made = adapter(replace(SETTINGS, dropout=0.5))
    x = torch.ones(2000, 12, dtype=torch.float64)
    kept = made.eval()(x)
    torch.testing.assert_close(kept, adapter()(x))
    dropped = made.train()(x)
    assert not torch.equal(dropped[0], dropped[1])
    torch.testing.assert_close(dropped.mean(0), kept.mean(0), rtol=0.2, atol=0.2)


def test_experts_of_one_module_have_an_adapter_each() -> None:
    adapters = [adapter(place=replace(QKV, name=str(expert))) for expert in range(3)]
    x = torch.randn(6, 12, dtype=torch.float64)
    out = GroupedAdapter(adapters)(x, torch.tensor([2, 0, 4]))
    torch.testing.assert_close(out, torch.cat([adapters[0](x[:2]), adapters[2](x[2:])]))


class TELayerNormColumnParallelLinear(torch.nn.Module):
    """Stands for Transformer Engine's linear that normalizes first, which needs a GPU: its name, its attribute and the
    shape of what it returns (`transformer_engine/pytorch/module/layernorm_linear.py`), with and without a bias.
    """

    def __init__(self, biased: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(10, 12))
        self.bias = torch.nn.Parameter(torch.randn(10))
        self.te_return_bias, self.return_layernorm_output = biased, False

    def forward(self, x: Any) -> Any:
        normalized = x / x.norm()
        out = normalized @ self.weight.T
        if self.te_return_bias:
            return (out, self.bias, normalized) if self.return_layernorm_output else (out, self.bias)
        return (out, normalized) if self.return_layernorm_output else out, None


class Chunk(torch.nn.Module):
    """What is asked of a model chunk of Megatron's, without one."""

    def __init__(self, linear: torch.nn.Module, **config: Any) -> None:
        super().__init__()
        usual = {"sequence_parallel": False, "gated_linear_unit": True, "params_dtype": torch.float32}
        self.config = SimpleNamespace(**usual, recompute_granularity=None, pipeline_model_parallel_size=1, **config)
        self.pre_process = True
        layer = torch.nn.Module()
        layer.layer_number = 5
        layer.self_attention = torch.nn.Module()
        layer.self_attention.linear_qkv = linear
        self.decoder = torch.nn.Module()
        self.decoder.layers = torch.nn.ModuleList([layer])


@pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core")
@pytest.mark.parametrize("biased", [True, False])
def test_beside_a_fused_norm_the_adapter_sees_what_was_normalized(
    biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron.core import mpu

    alone = SimpleNamespace(rank=lambda: 0, size=lambda: 1)
    monkeypatch.setattr(mpu, "get_tensor_model_parallel_group", lambda: alone)
    linear = TELayerNormColumnParallelLinear(biased)
    x = torch.randn(4, 12)
    before, bias = linear(x)
    (made,) = attach(Chunk(linear), SETTINGS)
    assert made.place.name == "decoder.layers.4.self_attention.linear_qkv"  # counted over the whole model
    assert [name for name, one in linear.named_parameters() if one.requires_grad] == ["lora.a", "lora.b"]
    torch.nn.init.normal_(made.b)
    after, same = linear(x)
    assert same is bias
    torch.testing.assert_close(after, before + made(x / x.norm()))
