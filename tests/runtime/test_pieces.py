"""The small pieces that generated code and Megatron call: loss, slices, attention, norms, the argument file."""

from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftc.runtime.errors import UserError
from sftc.runtime.megatron import read_argument_file, require_layers, require_target

torch = pytest.importorskip("torch")
F = torch.nn.functional

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from sftc.runtime.cpu import STAND_INS, OnCpu, activate, on_cpu  # noqa: E402
from sftc.runtime.device import choose, require_memory  # noqa: E402
from sftc.runtime.loss import masked_loss  # noqa: E402
from sftc.runtime.norms import LayerNorm, RMSNorm, norm_for  # noqa: E402
from sftc.runtime.packed import own_positions, segments, sequence_params  # noqa: E402
from sftc.runtime.zigzag import in_order, own_slices  # noqa: E402


def test_the_loss_is_a_sum_with_its_count() -> None:
    losses = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]], dtype=torch.bfloat16, requires_grad=True)
    total, count = masked_loss(losses, torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
    assert (total.item(), count.item()) == (38.0, 3)
    assert (total.dtype, count.dtype, total.shape, count.shape) == (torch.float32, torch.int32, (), ())
    total.backward()
    assert losses.grad.tolist() == [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_each_position_has_one_rank_and_each_rank_the_same_work(size: int) -> None:
    whole = torch.arange(32).view(2, 16)
    shares = [own_slices(whole, rank, size)[0] for rank in range(size)]
    assert all(torch.equal(own_slices(whole, rank, size)[1], shares[rank] + 16) for rank in range(size))
    assert sorted(torch.cat(shares).tolist()) == list(range(16))
    keys_met = {int((share + 1).sum()) for share in shares}
    assert len(keys_met) == 1
    assert in_order(torch.stack(shares)).tolist() == list(range(16))


def test_a_sequence_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"18 tokens cannot be cut into 2 \* 2 equal chunks"):
        own_slices(torch.zeros(1, 18), 0, 2)


def by_hand(query: Any, key: Any, value: Any) -> Any:
    """Softmax over the keys up to the query's position, one head at a time. Shapes as in `attend`."""
    out = torch.empty_like(query)
    heads, groups = query.shape[2], key.shape[2]
    for head in range(heads):
        group = head * groups // heads
        scores = torch.einsum("sbd,tbd->bst", query[:, :, head], key[:, :, group]) / query.shape[-1] ** 0.5
        scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), float("-inf"))
        out[:, :, head] = torch.einsum("bst,tbd->sbd", scores.softmax(-1), value[:, :, group])
    return out


@pytest.fixture
def qkv() -> Any:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(16, 2, heads, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)]


@pytest.fixture
def attention() -> Any:
    pytest.importorskip("megatron.core")
    from sftc.runtime import attention

    return attention


def test_attention_is_causal_with_grouped_queries(attention: Any, qkv: Any) -> None:
    torch.testing.assert_close(attention.attend(*qkv), by_hand(*qkv))


@pytest.mark.parametrize("queries", [1, 5])
def test_the_last_queries_see_what_they_see_among_all(attention: Any, qkv: Any, queries: int) -> None:
    query, key, value = qkv
    torch.testing.assert_close(attention.attend(query[-queries:], key, value), by_hand(*qkv)[-queries:])


@pytest.mark.parametrize("size", [2, 4])
def test_the_shares_of_the_ranks_make_up_the_whole(attention: Any, qkv: Any, size: int) -> None:
    query, key, value = qkv
    held = [own_slices(query.transpose(0, 1), rank, size).transpose(0, 1) for rank in range(size)]
    shares = [attention.attend_share(held[rank], key, value, rank, size) for rank in range(size)]
    torch.testing.assert_close(in_order(torch.stack(shares)), by_hand(query, key, value))


BORDERS = [0, 4, 12, 16]


def packed_by_hand(query: Any, key: Any, value: Any) -> Any:
    """Each segment for itself. query [t, heads, d], key and value [t, groups, d]."""
    whole = [tensor.unsqueeze(1) for tensor in (query, key, value)]
    return torch.cat([by_hand(*(tensor[a:b] for tensor in whole)) for a, b in pairwise(BORDERS)]).squeeze(1)


@pytest.fixture
def core(attention: Any) -> Any:
    """The attention module of a layer, on one rank."""
    settings = SimpleNamespace(attention_dropout=0.0, sequence_parallel=False, context_parallel_size=1)
    return attention.TorchAttention(settings, 1, SimpleNamespace(name="causal"), "self")


def test_attention_stays_within_the_documents_of_a_pack(core: Any, qkv: Any) -> None:
    query, key, value = (tensor[:, 0] for tensor in qkv)
    params = sequence_params(torch.tensor(BORDERS, dtype=torch.int32), "cpu")
    out = core(query, key, value, packed_seq_params=params)
    torch.testing.assert_close(out, packed_by_hand(query, key, value).flatten(1))


def test_the_shares_of_a_pack_make_up_the_whole(core: Any, qkv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks, whose gathering is played by handing over what both hold."""
    query, key, value = (tensor[:, 0] for tensor in qkv)
    borders = torch.tensor(BORDERS, dtype=torch.int32)
    held = [own_positions(borders, rank, 2) for rank in range(2)]
    assert [positions.tolist() for positions in held] == [[0, 3, 4, 5, 10, 11, 12, 15], [1, 2, 6, 7, 8, 9, 13, 14]]
    gathered = torch.stack([torch.cat([key, value], dim=-1)[positions] for positions in held])
    monkeypatch.setattr("sftc.runtime.attention.GatherSequence", SimpleNamespace(apply=lambda *_: gathered))
    wanted = packed_by_hand(query, key, value).flatten(1)
    for rank, positions in enumerate(held):
        core.cp_group = SimpleNamespace(rank=lambda rank=rank: rank, size=lambda: 2)
        shares = (tensor[positions] for tensor in (query, key, value))
        out = core(*shares, packed_seq_params=sequence_params(borders, "cpu"))
        torch.testing.assert_close(out, wanted[positions])


@pytest.mark.parametrize("size", [1, 2])
def test_a_pack_is_rotated_as_megatron_does_it(size: int) -> None:
    """At once, and to the same bits, with the gradients."""
    pytest.importorskip("megatron.core")
    from megatron.core.models.common.embeddings import rope_utils

    from sftc.runtime.megatron.mends import mend_packed_rotation

    mend_packed_rotation()
    mended = rope_utils._apply_rotary_pos_emb_thd
    borders = torch.tensor(BORDERS, dtype=torch.int32)
    angles = torch.randn(8, 1, 1, 8, generator=torch.Generator().manual_seed(1))
    for rank in range(size):
        held = own_positions(borders, rank, size)
        params = sequence_params(borders, "cpu", held)
        group = SimpleNamespace(rank=lambda rank=rank: rank, size=lambda: size)
        results = []
        for rotate in (mended, mended.__wrapped__):
            heads = torch.randn(16 // size, 3, 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
            turned = rotate(heads, params.cu_seqlens_q, angles, cp_group=group)
            results.append([turned, *torch.autograd.grad(turned.pow(3).sum(), heads)])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


def test_megatron_is_told_the_longest_document_and_no_empty_ones() -> None:
    """Told a longer one, its rotary embedding would count positions through the whole pack."""
    pytest.importorskip("megatron.core")
    borders = segments(torch.tensor([0, 3, 8, 10, 10, 10], dtype=torch.int32))
    params = sequence_params(borders, "cpu")
    assert (params.qkv_format, params.cu_seqlens_q.tolist(), params.max_seqlen_q) == ("thd", [0, 3, 8, 10], 5)
    assert (params.cu_seqlens_kv.tolist(), params.max_seqlen_kv) == ([0, 3, 8, 10], 5)


def config(**values: Any) -> Any:
    usual = {"params_dtype": torch.float32, "sequence_parallel": True, "layernorm_zero_centered_gamma": False}
    return SimpleNamespace(**usual | values)


@pytest.mark.parametrize(("name", "norm"), [("RMSNorm", RMSNorm), ("LayerNorm", LayerNorm)])
def test_norms_tell_megatron_to_add_up_their_gradients(name: str, norm: Any) -> None:
    assert norm_for(config(normalization=name)) is norm
    built = norm(config=config(), hidden_size=8, eps=1e-5)
    assert [parameter.sequence_parallel for parameter in built.parameters()] == [True] * len(list(built.parameters()))
    rows = torch.randn(3, 8)
    wanted = F.rms_norm(rows, (8,), eps=1e-5) if name == "RMSNorm" else F.layer_norm(rows, (8,), eps=1e-5)
    torch.testing.assert_close(built(rows), wanted)


def test_norms_that_torch_has_not_are_refused() -> None:
    with pytest.raises(UserError, match="zero-centred"):
        norm_for(config(normalization="RMSNorm", layernorm_zero_centered_gamma=True))


def test_the_argument_file_is_read_as_a_shell_would(tmp_path: Path) -> None:
    text = "--lr 0.001  # train.lr\n\n# a comment\n--save 'a b/#1'  # checkpoint.save\n--eps=-1\n--bf16\n"
    (tmp_path / "megatron.args").write_text(text)
    words = ["--lr", "0.001", "--save", "a b/#1", "--eps=-1", "--bf16"]
    assert read_argument_file(tmp_path / "megatron.args") == words


def test_the_target_is_the_installed_release_line() -> None:
    pytest.importorskip("megatron.core")
    assert require_target("0.19").startswith("0.19.")
    with pytest.raises(UserError, match=r"this build is for Megatron 0\.18, installed is 0\.19\.") as caught:
        require_target("0.18")
    assert "megatron-core[training]==0.18.*" in str(caught.value.help)


def test_layers_that_are_not_installed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftc.runtime.megatron.arguments.find_spec", lambda _: None)
    require_layers("local")
    with pytest.raises(UserError, match="Transformer Engine is not installed"):
        require_layers("transformer_engine")


def test_cuda_does_not_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose("auto") == "cpu"
    with pytest.raises(UserError, match="finds no GPU here"):
        choose("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose("auto") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="rank 2 of this node has no GPU: torch finds 2 here"):
        choose("auto")


@pytest.mark.parametrize("device", ["cuda", "cuda:1", 0, torch.device("cuda", 3)])
def test_every_spelling_of_a_gpu_is_the_cpu(device: Any) -> None:
    assert on_cpu(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["meta", torch.device("meta"), None, torch.float32])
def test_what_is_no_gpu_stays_what_it_is(device: Any) -> None:
    assert on_cpu(device) == device


def test_the_cpu_device_is_inert_where_cuda_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = {name: getattr(torch.cuda, name, None) for name in STAND_INS}
    activate()
    assert {name: getattr(torch.cuda, name, None) for name in STAND_INS} == before


def test_while_on_the_cpu_no_request_for_a_gpu_gets_through() -> None:
    with OnCpu():
        made = torch.zeros(2, device="cuda", pin_memory=True)
        assert {made.device.type, made.cuda().device.type, made.to("cuda:0").device.type} == {"cpu"}
        assert made.type() == "torch.cuda.FloatTensor"
        assert made.type("torch.cuda.IntTensor").dtype == torch.int32


def test_a_seed_for_the_gpu_seeds_the_cpu() -> None:
    """Tensor-parallel ranks draw their shards of the weights under seeds of their own."""
    state = torch.get_rng_state()
    draws = []
    for seed in (1, 2, 1):
        STAND_INS["manual_seed"](seed)
        draws.append(torch.rand(1).item())
    torch.set_rng_state(state)
    assert draws[0] == draws[2] != draws[1]


def test_a_continued_run_trains_at_its_own_learning_rate() -> None:
    """The groups of a checkpoint differ from the run's in nothing but the rates, so they are the same groups."""
    pytest.importorskip("megatron.core")
    from megatron.core.optimizer.optimizer import MegatronOptimizer

    from sftc.runtime.megatron.mends import mend_learning_rate

    mend_learning_rate()
    ours = [{"max_lr": 0.001, "min_lr": 0.0, "wd_mult": mult, "params": []} for mult in (1.0, 0.0)]
    saved = [{"max_lr": 0.002, "min_lr": 0.1, "wd_mult": mult, "params": [mult], "step": 6} for mult in (1.0, 0.0)]
    paired = MegatronOptimizer._filter_and_reorder_param_groups(ours, saved)
    assert [(group["max_lr"], group["min_lr"], group["step"]) for group in paired] == [(0.001, 0.0, 6)] * 2
    assert [group["wd_mult"] for group in paired] == [1.0, 0.0]
    own_rates = [{"max_lr": 0.5, "wd_mult": 1.0, "params": []}, {"max_lr": 0.7, "wd_mult": 1.0, "params": []}]
    with pytest.raises(ValueError, match="Could not find parameter group"):
        MegatronOptimizer._filter_and_reorder_param_groups(own_rates, saved)


class Counting(TorchDispatchMode):
    """Counts torch's kernels, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.calls[name] = self.calls.get(name, 0) + 1
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_of_adam_is_one_kernel_if_the_recipe_says_so(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a checkpoint of a run that stepped in the other way: its groups bring that run's choice."""
    pytest.importorskip("megatron.core")
    from megatron.core.optimizer.optimizer import FP32Optimizer, MegatronOptimizer

    from sftc.runtime.megatron.mends import mend_adam

    monkeypatch.setattr(MegatronOptimizer, "__init__", MegatronOptimizer.__init__)  # put back afterwards
    mend_adam(fused)
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
    config = SimpleNamespace(use_precision_aware_optimizer=False)
    with OnCpu():
        ours = FP32Optimizer(torch.optim.AdamW(weights, lr=0.1), config, None).optimizer
    other = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3)) for _ in range(4)], lr=0.1, fused=not fused)
    for _ in range(2):
        for weight in (*weights, *other.param_groups[0]["params"]):
            weight.grad = torch.ones(3)
        with Counting() as kernels:
            ours.step()
        assert kernels.calls.get("_fused_adamw_", 0) == fused
        other.step()
        ours.load_state_dict(deepcopy(other.state_dict()))
    assert [state["step"].item() for state in ours.state.values()] == [2] * 4


def test_a_layer_is_compiled_while_it_trains_and_for_strides_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is a fake: it returns what it was called with. That layers are compiled is seen in test_speed.py."""
    from sftc.runtime.megatron.compiled import _compile, in_order

    def fake(method: Any, **_: Any) -> Any:
        return lambda hidden_states: (method, hidden_states.stride())

    monkeypatch.setattr(torch, "compile", fake)
    layer: Any = torch.nn.Identity()
    layer.forward = eager = lambda hidden_states: hidden_states
    _compile(layer, "forward")
    embedded = torch.arange(24.0).view(2, 3, 4).transpose(0, 1)  # [s, b, h] as it comes from the embedding
    assert layer(hidden_states=embedded) == (eager, (8, 4, 1))
    assert layer.eval()(hidden_states=embedded) is embedded
    assert torch.equal(in_order(embedded), embedded)
    alone = embedded[:, :1]  # one row, whose stride is of no use
    assert in_order(alone).stride() == in_order(alone.contiguous()).stride() == (4, 4, 1)


def test_norms_of_queries_and_keys_that_torch_has_already_are_kept() -> None:
    pytest.importorskip("megatron.core")
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    from sftc.runtime.model import _torch_native

    for options, name in (({"qk_l2_norm": True}, "L2Norm"), ({"qk_layernorm": True}, "RMSNorm"), ({}, "IdentityOp")):
        plain = SimpleNamespace(multi_latent_attention=False)
        layer = _torch_native(get_gpt_layer_local_spec(**options), RMSNorm, plain)
        attention = layer.submodules.self_attention.submodules
        assert (attention.q_layernorm.__name__, attention.k_layernorm.__name__) == (name, name)
        assert attention.core_attention.__name__ == "TorchAttention"


@pytest.mark.parametrize(
    ("hardware", "gibibytes", "told"),
    [
        (None, 1, None),
        ("H100", 79.1, None),  # as torch reports an H100
        ("H100", 39.4, "has 39.4 GiB of memory, and the recipe is made for `launch.hardware: H100` (79.6 GiB)"),
    ],
)
def test_a_gpu_smaller_than_the_recipe_says_is_refused(
    monkeypatch: pytest.MonkeyPatch, hardware: str | None, gibibytes: float, told: str | None
) -> None:
    """The GPUs are made up, and this rank's is not the first: only its size is asked for."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ["another", "a made-up GPU"][index])
    sizes = [SimpleNamespace(total_memory=int(size * 2**30)) for size in (60.0, gibibytes)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: sizes[index])
    if told is None:
        require_memory(hardware)
        return
    with pytest.raises(UserError) as raised:
        require_memory(hardware)
    assert raised.value.message == f"`a made-up GPU` {told}"
