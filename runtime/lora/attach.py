"""The model of a rank, frozen, with adapters beside the linears that the recipe names."""

from collections.abc import Iterator
from typing import Any, Literal

import torch

from ..megatron.parameters import first_expert, place_of
from .adapter import Adapter, GroupedAdapter, Place
from .settings import Settings
from .targets import is_target

LAYERS = "decoder.layers."
SPLITS: tuple[tuple[Literal["column", "row"], str], ...] = (("column", "ColumnParallel"), ("row", "RowParallel"))


def attach(chunk: Any, settings: Settings) -> list[Adapter]:
    """Freeze a model chunk (a virtual stage) of this rank and hang adapters beside its linears; returns them all.

    The chunk is built and filled, and not yet wrapped.
    """
    chunk.requires_grad_(False)
    modules = [(place_of(chunk, name)[0], module) for name, module in chunk.named_modules() if name.startswith(LAYERS)]
    found = []
    for name, module in modules:
        if is_target(name, settings.targets):
            found += _hang(chunk, name, module, settings)
    _let_gradients_flow(chunk)
    return found


def _hang(chunk: Any, name: str, linear: Any, settings: Settings) -> list[Adapter]:
    """Beside one linear, or beside a module of Transformer Engine's that has those of all experts of this rank."""
    weights = [parameter for key, parameter in linear.named_parameters(recurse=False) if key.startswith("weight")]
    adapters = []
    is_grouped = "Grouped" in type(linear).__name__
    names = _of_experts(chunk, name, len(weights)) if is_grouped else iter([name])
    for one, weight in zip(names, weights, strict=True):
        adapter = Adapter(settings, _place(chunk, one, linear, weight), chunk.config.params_dtype, weight.device)
        _mark(adapter, weight)
        adapters.append(adapter)
    linear.lora = GroupedAdapter(adapters) if is_grouped else adapters[0]
    if hasattr(linear, "return_layernorm_output"):  # Transformer Engine's, fused with the norm before it
        linear.return_layernorm_output = True
    linear.register_forward_hook(_add)
    return adapters


def _of_experts(chunk: Any, name: str, count: int) -> Iterator[str]:
    """As their linears are called where each is a module of its own."""
    start = first_expert(chunk)
    return (name.replace(".experts.", f".experts.local_experts.{start + at}.") for at in range(count))


def _place(chunk: Any, name: str, linear: torch.nn.Module, weight: torch.Tensor) -> Place:
    from megatron.core import mpu

    split = next(split for split, word in SPLITS if word in type(linear).__name__)
    is_expert = ".experts." in name
    group = mpu.get_expert_tensor_parallel_group() if is_expert else mpu.get_tensor_model_parallel_group()
    rank, size = group.rank(), group.size()
    outputs, inputs = weight.shape
    return Place(
        name=name,
        inputs=inputs * (size if split == "row" else 1),
        outputs=outputs * (size if split == "column" else 1),
        split=split,
        group=group,
        rank=rank,
        size=size,
        is_expert=is_expert,
        is_sequential=chunk.config.sequence_parallel and not is_expert and size > 1,
        is_gated=chunk.config.gated_linear_unit and name.endswith(".linear_fc1"),
    )


def _mark(adapter: Adapter, weight: torch.Tensor) -> None:
    """What Megatron reads off a parameter when it reduces gradients and adds up their norm."""
    from megatron.core.tensor_parallel import set_tensor_model_parallel_attributes

    for name, parameter in adapter.named_parameters():
        marked: Any = parameter
        axis = adapter.axis(name)
        if axis is not None:
            set_tensor_model_parallel_attributes(parameter, True, axis, 1)
        marked.allreduce = getattr(weight, "allreduce", True)
        marked.sequence_parallel = adapter.place.is_sequential and axis is None


def _add(linear: Any, inputs: tuple[Any, ...], output: Any) -> Any:
    """A forward hook. A linear returns its output and a bias that it leaves to others to add; one that normalizes first
    returns what it has normalized besides.
    """
    x, *counts = inputs
    result, bias, *normalized = output
    if isinstance(result, tuple):
        result, x = result
    elif normalized:
        x = normalized[0]
    return result + linear.lora(x, *counts), bias


def _let_gradients_flow(chunk: Any) -> None:
    """Recomputed layers and pipeline stages ask for the gradient of what goes into them: that of a frozen embedding's
    output, which has none.
    """
    config = chunk.config
    if chunk.pre_process and (config.recompute_granularity or config.pipeline_model_parallel_size > 1):
        chunk.embedding.register_forward_hook(lambda _, __, output: output.requires_grad_(True))
