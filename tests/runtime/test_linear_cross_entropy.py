"""Losses without logits are the losses, and their gradients are the gradients."""

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("megatron.core")
import torch.nn.functional as F  # noqa: E402

from sftc.compiler.estimate.activations import SLICE  # noqa: E402
from sftc.runtime import linear_cross_entropy as fused  # noqa: E402

# In the place of a process group of one rank; several ranks are in test_layouts.py.
ALONE = SimpleNamespace(rank=lambda: 0, size=lambda: 1)
LENGTH, BATCH, HIDDEN, VOCABULARY = 23, 3, 16, 101


def numbers(*shape: int, seed: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def given(dtype: Any = torch.float32) -> tuple[Any, Any, Any]:
    labels = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(3))
    return numbers(LENGTH, BATCH, HIDDEN, seed=1, dtype=dtype), numbers(VOCABULARY, HIDDEN, seed=2, dtype=dtype), labels


def plain(hidden: Any, weight: Any, labels: Any) -> Any:
    """From the logits of all tokens, as Megatron computes it: [b, s]."""
    logits = (hidden @ weight.t()).float().transpose(0, 1)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def ours(hidden: Any, weight: Any, labels: Any, mask: Any = None) -> Any:
    return fused.token_losses(hidden, weight, labels, mask, group=ALONE, sequence_parallel=False)


def with_gradients(losses: Any, weights: Any, *inputs: Any) -> list[Any]:
    """The losses, and the gradients of their sum with these weights."""
    return [losses.detach(), *torch.autograd.grad((losses * weights).sum(), inputs)]


@pytest.fixture(params=[1, 7, 1000], ids="{0} tokens in a slice".format)
def in_slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setitem(fused.ELEMENTS, "cpu", count * VOCABULARY)
    return count


@pytest.mark.usefixtures("in_slices")
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_losses_and_gradients_are_those_from_logits(dtype: Any, within: float) -> None:
    hidden, weight, labels = given(dtype)
    weights = numbers(BATCH, LENGTH, seed=4).detach()  # of a loss hook: no two tokens weigh the same
    found = with_gradients(ours(hidden, weight, labels), weights, hidden, weight)
    wanted = with_gradients(plain(hidden, weight, labels), weights, hidden, weight)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert (one - other).norm() <= within * other.norm()


@pytest.mark.usefixtures("in_slices")
def test_what_is_masked_is_not_computed_and_changes_nothing() -> None:
    hidden, weight, labels = given()
    mask = (numbers(BATCH, LENGTH, seed=5) > 0).float()
    found = with_gradients(ours(hidden, weight, labels, mask), mask, hidden, weight)
    wanted = with_gradients(plain(hidden, weight, labels) * mask, mask, hidden, weight)
    assert 0 < mask.sum() < mask.numel()
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0] == 0, mask == 0)


def test_a_micro_batch_without_a_supervised_token_has_gradients_of_zero() -> None:
    hidden, weight, labels = given()
    mask = torch.zeros(BATCH, LENGTH)
    losses, *grads = with_gradients(ours(hidden, weight, labels, mask), mask, hidden, weight)
    assert not losses.any()
    assert [grad.count_nonzero().item() for grad in grads] == [0, 0]
    assert [grad.shape for grad in grads] == [hidden.shape, weight.shape]


@pytest.mark.usefixtures("in_slices")
def test_frozen_weights_have_no_gradient() -> None:
    hidden, weight, labels = given()
    (grad,) = torch.autograd.grad(ours(hidden, weight.detach(), labels).sum(), hidden)
    (wanted,) = torch.autograd.grad(plain(hidden, weight, labels).sum(), hidden)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-5)


def test_logits_far_from_zero_do_not_overflow() -> None:
    hidden, weight, labels = given()
    losses = ours(hidden * 1000, weight, labels)
    assert torch.isfinite(losses).all()
    torch.testing.assert_close(losses, plain(hidden * 1000, weight, labels), rtol=1e-5, atol=1e-3)


def test_slices_are_all_tokens_once_and_not_too_large(in_slices: int) -> None:
    weight = torch.empty(VOCABULARY, 1)
    for count in (0, 1, 6, 7, 8, 69):
        parts = [range(count)[part] for part in fused.slices(count, weight)]
        assert [place for part in parts for place in part] == list(range(count))
        assert all(0 < len(part) <= in_slices for part in parts)


def test_no_tensor_as_large_as_the_logits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused.ELEMENTS, "cpu", 5 * VOCABULARY)
    hidden, weight, labels = given()

    def kept(losses: Any) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()), lambda t: t):
            losses(hidden, weight, labels)
        return max(sizes)

    assert kept(plain) == BATCH * LENGTH * VOCABULARY
    assert kept(ours) == weight.numel() < BATCH * LENGTH * VOCABULARY


def test_the_estimate_knows_how_large_a_slice_is() -> None:
    assert SLICE == fused.ELEMENTS
