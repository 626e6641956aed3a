"""What runs on a rank, with tensors that say they are on a GPU.

The tensors are fake (see fake_cuda.py): no number is computed, no kernel runs, no GPU is there. So these tests show
that nothing mixes devices, that every collective is of tensors on the GPU, as NCCL wants it, that gradients are where
their parameters are, and that a step reads no number, for which the host would wait. They cannot show that a kernel
takes what it is given, which one is chosen, what it computes, how much memory it needs, streams, random numbers, or
what another rank does. Left out is what lives by the numbers: the loop over the tokens of an answer, and reading
weights and checkpoints. Where a mask chooses tokens (a loss without logits), how many it chooses is made up.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("megatron.core")

import fake_cuda  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from fake_cuda import Delivery, Driver, Nccl, backward, model, ranks, wrapped  # noqa: E402
from torch._subclasses.fake_tensor import DataDependentOutputException  # noqa: E402

from sftc.runtime import packed as packs  # noqa: E402
from sftc.runtime.answers.measure import _sums  # noqa: E402
from sftc.runtime.answers.questions import Question  # noqa: E402
from sftc.runtime.answers.sampling import choose  # noqa: E402
from sftc.runtime.attention import TorchAttention  # noqa: E402
from sftc.runtime.batch import next_batch  # noqa: E402
from sftc.runtime.hooks import hook  # noqa: E402
from sftc.runtime.linear_cross_entropy import token_losses  # noqa: E402
from sftc.runtime.lora.attach import attach  # noqa: E402
from sftc.runtime.lora.digest import digest_of  # noqa: E402
from sftc.runtime.lora.settings import Settings  # noqa: E402
from sftc.runtime.megatron.head import fuse_loss  # noqa: E402
from sftc.runtime.megatron.inference import Asked, whole_sequences  # noqa: E402
from sftc.runtime.megatron.mends import (  # noqa: E402
    gradient_norm,
    mend_gradient_norm,
    mend_packed_rotation,
    mend_query_projection,
    step_of,
)
from sftc.runtime.megatron.news import _total  # noqa: E402
from sftc.runtime.norms import LayerNorm, RMSNorm  # noqa: E402
from sftc.runtime.train import import_step  # noqa: E402

GENERATED = Path(__file__).resolve().parents[1] / "golden/expected"
HALF = torch.bfloat16
BORDERS = [0, 16, 48, 64]
HOOKS = ("loss", "metrics")
LINEARS = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")
LORA = Settings(rank=4, alpha=8.0, dropout=0.1, targets=LINEARS, rslora=False, seed=1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN"):  # which a model of Megatron's sets
        monkeypatch.setenv(name, "unset by the end")
        monkeypatch.delenv(name)
    with fake_cuda.gpu(monkeypatch) as made:
        yield made


@pytest.fixture
def nccl(gpu: Any) -> Iterator[Nccl]:
    """The test runs on the made-up GPU."""
    with gpu, Nccl() as made:
        yield made


def require_gradients(output: Any, *leaves: Any) -> None:
    found = backward(output.float().sum())
    assert {id(leaf) for leaf in leaves} <= {id(leaf) for leaf in found}
    for leaf, grad in found.items():
        assert (grad.device, grad.dtype, grad.shape) == (leaf.device, leaf.dtype, leaf.shape)
        assert grad.is_cuda


def heads(*shape: int, dtype: Any = HALF) -> Any:
    return torch.empty(shape, device="cuda", dtype=dtype, requires_grad=True)


def rows(count: int, length: int) -> dict[str, Any]:
    """A micro-batch as the data loader has it: on the host, with numbers."""
    whole = torch.arange(count * length).view(count, length) % 100
    named = {"tokens": whole, "labels": whole + 1, "position_ids": whole}
    return {**named, "loss_mask": torch.ones(count, length), "length": torch.tensor([9] * count)}


def core(size: int = 1, dropout: float = 0.0) -> Any:
    settings = SimpleNamespace(attention_dropout=dropout, sequence_parallel=False, context_parallel_size=size)
    groups = SimpleNamespace(cp=torch.distributed.group.WORLD) if size > 1 else None
    return TorchAttention(settings, 1, SimpleNamespace(name="causal"), "self", pg_collection=groups)


@pytest.fixture
def pack(gpu: Any) -> Any:
    """What a step knows of a pack: where it ends on the host, and what is on the GPU."""
    with Delivery(gpu):
        return packs.sequence_params(torch.tensor(BORDERS, dtype=torch.int32), 0)


@pytest.mark.usefixtures("nccl")
@pytest.mark.parametrize("dtype", [HALF, torch.float16, torch.float32])
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(("queries", "value"), [(64, 16), (1, 16), (7, 16), (64, 8)])
def test_attention_is_on_the_gpu(dtype: Any, groups: int, queries: int, value: int) -> None:
    """All queries, one or some behind those in a cache, and values of another size than the keys."""
    inputs = [heads(queries, 2, 4, 16, dtype=dtype), *(heads(64, 2, groups, size, dtype=dtype) for size in (16, value))]
    out = core()(*inputs)
    assert (out.device.type, out.dtype, out.shape) == ("cuda", dtype, (queries, 2, 4 * value))
    require_gradients(out, *inputs)


@pytest.mark.usefixtures("nccl")
def test_no_kernel_of_a_gpu_is_asked_for_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouped queries with a mask or in float32: torch would build the scores of all pairs."""
    asked: list[tuple[bool, bool]] = []
    original = F.scaled_dot_product_attention

    def spy(query: Any, key: Any, value: Any, mask: Any = None, *args: Any, **kwargs: Any) -> Any:
        asked.append((mask is not None, kwargs["enable_gqa"]))
        return original(query, key, value, mask, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    for queries, dtype in ((64, HALF), (1, HALF), (7, HALF), (64, torch.float32), (1, torch.float32)):
        core()(heads(queries, 1, 4, 16, dtype=dtype), *(heads(64, 1, 2, 16, dtype=dtype) for _ in range(2)))
    assert asked == [(False, True), (False, True), (True, False), (False, False), (False, False)]


@pytest.mark.usefixtures("pack", "nccl")
@pytest.mark.parametrize(
    ("dtype", "size", "value", "capability", "dropout", "fits"),
    [
        (HALF, 64, 64, (9, 0), 0.0, True),
        (torch.float16, 256, 256, (8, 0), 0.0, True),
        (torch.float32, 64, 64, (9, 0), 0.0, False),
        (HALF, 64, 64, (9, 0), 0.1, False),
        (HALF, 192, 128, (9, 0), 0.0, False),  # multi-latent attention
        (HALF, 36, 36, (9, 0), 0.0, False),
        (HALF, 264, 264, (9, 0), 0.0, False),
        (torch.float16, 64, 64, (7, 5), 0.0, False),
    ],
)
def test_packs_go_to_the_kernel_that_takes_them(
    pack: Any,
    monkeypatch: pytest.MonkeyPatch,
    dtype: Any,
    size: int,
    value: int,
    capability: Any,
    dropout: float,
    fits: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    calls: list[int] = []
    original = packs.fused_attention
    monkeypatch.setattr("sftc.runtime.attention.fused_attention", lambda *a: calls.append(1) or original(*a))
    inputs = [heads(64, 4, size, dtype=dtype), heads(64, 2, size, dtype=dtype), heads(64, 2, value, dtype=dtype)]
    out = core(dropout=dropout)(*inputs, packed_seq_params=pack)
    assert bool(calls) == fits
    assert (out.device.type, out.dtype, out.shape) == ("cuda", dtype, (64, 4 * value))
    require_gradients(out, *inputs)


@pytest.mark.parametrize("is_packed", [False, True])
def test_gathered_keys_and_values_are_on_the_gpu(pack: Any, nccl: Nccl, is_packed: bool) -> None:
    with ranks(context_parallel_size=1):
        shape = (32,) if is_packed else (32, 2)
        inputs = [heads(*shape, count, 16) for count in (4, 2, 2)]
        out = core(size=2)(*inputs, packed_seq_params=pack if is_packed else None)
        assert (out.device.type, out.shape) == ("cuda", (*shape, 64))
        require_gradients(out, *inputs)
    assert nccl.called == {"allgather_", "allreduce_"}


@pytest.mark.usefixtures("nccl")
@pytest.mark.parametrize("norm", [RMSNorm, LayerNorm])
def test_norms_are_on_the_gpu(norm: Any) -> None:
    built = norm(SimpleNamespace(params_dtype=HALF, sequence_parallel=False), 32)
    for name, parameter in list(built._parameters.items()):
        built._parameters[name] = torch.nn.Parameter(parameter.detach().cuda())
    states = heads(8, 2, 32)
    out = built(states)
    assert (out.device.type, out.dtype) == ("cuda", HALF)
    require_gradients(out, states, *built.parameters())


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("size", [1, 2])
def test_losses_without_logits_are_on_the_gpu(nccl: Nccl, size: int, is_masked: bool) -> None:
    with ranks(tensor_model_parallel_size=1):
        group = torch.distributed.group.WORLD if size == 2 else SimpleNamespace(rank=lambda: 0, size=lambda: 1)
        hidden, weight = heads(16 // size, 2, 32), heads(64, 32)
        labels = torch.zeros(2, 16, dtype=torch.int64, device="cuda")
        mask = torch.ones(2, 16, device="cuda") if is_masked else None
        with Driver(chooses=True):
            losses = token_losses(hidden, weight, labels, mask, group=group, sequence_parallel=size == 2)
        assert (losses.device.type, losses.dtype, losses.shape) == ("cuda", torch.float32, (2, 16))
        require_gradients(losses, hidden, weight)
    assert ("allreduce_" in nccl.called) == (size == 2)


@pytest.mark.parametrize(("size", "settings"), [(1, {}), (1, {"longest": 4}), (2, {"context_parallel": True})])
def test_a_batch_goes_to_the_gpu_as_it_lies_in_pinned_memory(gpu: Any, size: int, settings: Any) -> None:
    """A view of it, or what is cut out of it, would be copied on the host first, which waits for the GPU."""
    whole = rows(2, 16)
    with ranks(context_parallel_size=size), Delivery(gpu) as delivery:
        batch = next_batch(iter([dict(whole)]), **settings)
    assert all(any(taken is tensor for tensor in whole.values()) for taken in delivery.taken)
    share = 12 if settings.get("longest") else 16 // size
    tensors = [value for value in batch.values() if value is not None]
    assert [(one.device.type, one.shape, one.is_contiguous()) for one in tensors] == [("cuda", (2, share), True)] * 4
    assert {batch[key].dtype for key in ("tokens", "labels", "position_ids")} == {torch.int64}


@pytest.mark.parametrize("size", [1, 2])
def test_a_pack_goes_to_the_gpu(gpu: Any, size: int) -> None:
    with ranks(context_parallel_size=size), Delivery(gpu):
        batch = packed_batch(size)
    told = batch.pop("packed_seq_params")
    assert {value.device.type for value in batch.values() if value is not None} == {"cuda"}
    assert batch["tokens"].shape == (1, 64 // size)
    assert (told.cu_seqlens_q.device.type, told.cu_seqlens_q.dtype, told.max_seqlen_q) == ("cuda", torch.int32, 32)
    places = packs.places_of(told.cu_seqlens_q)
    assert (places.device.type, places.shape) == ("cuda", (64 // size,))


def packed_batch(size: int) -> Any:
    borders = torch.tensor([[*BORDERS, 64, 64]], dtype=torch.int32)
    return next_batch(iter([{**rows(1, 64), "cu_seqlens": borders}]), context_parallel=size > 1, packed=True)


LATENT = {
    "multi_latent_attention": True,
    "qk_layernorm": True,
    "q_lora_rank": None,
    "kv_lora_rank": 16,
    "qk_head_dim": 16,
    "qk_pos_emb_head_dim": 8,
    "v_head_dim": 16,
    "rope_type": "yarn",
    "rotary_scaling_factor": 40.0,
}
LAYOUTS = [{}, {"tensor_model_parallel_size": 2}, {"context_parallel_size": 2}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("recipe", ["quickstart", "packed", "lora", "fused loss", "latent", "latent, packed"])
def test_a_step_is_on_the_gpu(gpu: Any, layout: dict[str, int], recipe: str) -> None:
    """Megatron's own GPT model in bf16, with what is ours in it, from the data loader's rows to the gradients."""
    mend_packed_rotation()
    mend_query_projection()
    is_packed = "packed" in recipe
    step = import_step(GENERATED / ("packed" if is_packed else "quickstart") / "forward_step.py")
    size = layout.get("context_parallel_size", 1)
    with ranks(**layout):
        with Delivery(gpu):
            batch = packed_batch(size) if is_packed else next_batch(iter([rows(2, 64)]), size > 1)
        with gpu, Nccl() as nccl, Driver(chooses=recipe == "fused loss"):
            chunk = model(**(LATENT if "latent" in recipe else {}))
            adapters = attach(chunk, LORA) if recipe == "lora" else []
            if recipe == "fused loss":
                fuse_loss(chunk)
            named = {"packed_seq_params": batch["packed_seq_params"]} if is_packed else {}
            losses = wrapped(chunk)(
                batch["tokens"],
                batch["position_ids"],
                None,
                labels=batch["labels"],
                loss_mask=batch["loss_mask"],
                **named,
            )
            assert (losses.device.type, losses.dtype, losses.shape) == ("cuda", torch.float32, batch["labels"].shape)
            total, count, report = step.loss_func(batch, losses)
            assert (total.dtype, count.dtype) == (torch.float32, torch.int32)
            assert {one.device.type for one in (total, count, report["lm loss"])} == {"cuda"}
            trained = [parameter for parameter in chunk.parameters() if parameter.requires_grad]
            assert len(trained) == (2 * len(adapters) if recipe == "lora" else len(list(chunk.parameters())))
            require_gradients(total, *trained)
            with pytest.raises(DataDependentOutputException):  # read once it is summed over the ranks
                _total([count, count])
            assert "allreduce_" in nccl.called


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("changes", [{}, {"num_moe_experts": 4, "moe_ffn_hidden_size": 64}], ids=["dense", "experts"])
def test_the_digest_of_a_model_that_is_partly_on_the_host(nccl: Nccl, last: bool, changes: Any) -> None:
    """Megatron moves it after we have seen it: its linears are on the GPU by then, its norms and routers are not."""
    with ranks(last=last, pipeline_model_parallel_size=2):
        chunk = model(**changes)
        assert {parameter.device.type for parameter in chunk.parameters()} == {"cuda", "cpu"}
        total = digest_of([chunk])
        assert (total.device.type, total.dtype, total.shape) == ("cuda", torch.int64, (1,))
        adapters = attach(chunk, LORA)
        assert {parameter.device.type for one in adapters for parameter in one.parameters()} == {"cuda"}
    assert nccl.called == {"allreduce_"}


@pytest.mark.parametrize("layout", [{}, {"tensor_model_parallel_size": 2}], ids=str)
def test_a_model_is_asked_on_the_gpu(nccl: Nccl, layout: dict[str, int]) -> None:
    """A prompt and one token behind it, and what the references are worth."""
    with ranks(**layout), torch.no_grad():
        chunks = [wrapped(model()).eval()]
        with whole_sequences(chunks):
            asked = Asked(chunks)
            cache = asked.cache(2, 16)
            tokens = torch.zeros(2, 5, dtype=torch.int64, device="cuda")
            for filled in (5, 6):
                logits = asked.logits(tokens, cache)
                assert (logits.device.type, logits.shape, cache.filled) == ("cuda", (2, 1, 128), filled)
                sampling = SimpleNamespace(temperature=0.7, top_k=4, top_p=0.9)
                tokens = asked.shared(choose(logits[:, -1], sampling, [0.1, 0.2])).unsqueeze(1)
                assert (tokens.device.type, tokens.dtype) == ("cuda", torch.int64)
            # every rank of a copy reads on in the same text
            assert ("broadcast_" in nccl.called) == bool(layout)
            with pytest.raises(DataDependentOutputException):
                asked.all_done(True)
            question = Question(row=0, start=2, end=4, tokens=np.arange(6), mask=np.ones(6, dtype=np.uint8))
            with Driver(chooses=True):
                sums = _sums(asked, [question], 2, 5)
            assert (sums.device.type, sums.dtype, sums.shape) == ("cuda", torch.float64, (3,))


@pytest.mark.parametrize("count", ["3", "torch.tensor(3)"])
def test_what_a_hook_counts_on_the_host_goes_to_the_gpu(nccl: Nccl, tmp_path: Path, count: str) -> None:
    assert nccl
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\n"
        f"def loss(losses, loss_mask, batch):\n    return losses.sum(), {count}\n\n\n"
        f"def metrics(losses, loss_mask, batch):\n    return {{'sure': (1.5, {count})}}\n"
    )
    losses = heads(2, 8, dtype=torch.float32)
    called = {name: hook(name, f"mine.py:{name}", "losses, loss_mask, batch", str(tmp_path / "x")) for name in HOOKS}
    total, number = called["loss"](losses, None, {})
    sure = called["metrics"](losses, None, {})["sure"]
    assert {one.device.type for one in (total, number, sure)} == {"cuda"}
    assert [one.shape for one in (total, number, sure)] == [(), (), (2,)]


def test_the_norm_of_the_gradients_is_taken_on_the_gpu(nccl: Nccl, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.optimizer import clip_grads

    monkeypatch.setattr(clip_grads, "l2_norm_impl", clip_grads.local_multi_tensor_l2_norm)
    mend_gradient_norm()
    assert clip_grads.l2_norm_impl is gradient_norm
    monkeypatch.setattr(clip_grads, "multi_tensor_scale_tensor_impl", object())  # else the one number is read here
    with ranks():
        total = clip_grads.get_grad_norm_fp32([heads(4, 4, dtype=torch.float32), heads(3, dtype=torch.float32)])
    assert (total.device.type, total.dtype, total.shape) == ("cuda", torch.float32, (1,))
    assert nccl.called == {"allreduce_"}


def test_the_norm_of_the_gradients_is_that_of_one_vector() -> None:
    gradients = [torch.randn(shape, generator=torch.Generator().manual_seed(3)) for shape in ((5, 7), (1,), (64,))]
    wanted = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    torch.testing.assert_close(gradient_norm(None, None, [gradients], False)[0], wanted.reshape(1))


@pytest.mark.usefixtures("nccl")
def test_steps_are_counted_where_the_optimizer_looks_for_them() -> None:
    parameter = heads(4, dtype=torch.float32)
    assert step_of(3.0, parameter, {"capturable": False, "fused": None}).device.type == "cpu"
    assert step_of(3.0, parameter, {"capturable": True}).device == parameter.device
    assert step_of(3.0, parameter, {"fused": True}).dtype == torch.float32
