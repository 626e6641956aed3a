"""Transformer layers through torch's compiler, each by itself: those of one make share what is compiled."""

import inspect
from collections.abc import Sequence
from functools import wraps
from typing import Any

# Of one method: with one length and with several, training and recomputing, with a gradient of the input and without.
# At its own limit, 8, torch would stop compiling and go on.
RECOMPILE_LIMIT = 64


def compile_layers(chunks: Sequence[Any], *, packed: bool) -> None:
    """Let the layers of `chunks` be compiled when they first train, in place: no parameter changes its name.

    packed: attention then looks at where documents end, which the compiler would take for constants of the graph. What
    lies before it and behind it is compiled, and it is called as it is.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    for layer in (layer for chunk in chunks for layer in chunk.decoder.layers):
        for module in layer.modules():
            if _only_multiplies(module):
                module._forward_impl = product
        if packed:
            _compile(layer.self_attention, "get_query_key_value_tensors")
            _compile(layer, "_forward_mlp")
        else:
            _compile(layer, "forward")


def summary() -> str:
    """What this process has compiled, in words."""
    from torch._dynamo.utils import calculate_time_spent, counters

    graphs, cuts = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    seconds = calculate_time_spent()["total_wall_time"]
    return f"torch.compile: {graphs} graphs in {seconds:.0f} s" + (f", cut at {cuts} places" if cuts else "")


def _compile(module: Any, name: str) -> None:
    """While nothing is trained the method stays what it was: evaluation and answers come with shapes of their own."""
    import torch

    eager = getattr(module, name)
    compile_ = inspect.unwrap(torch.compile)  # the CPU device has put it out of use, for functions of Megatron's
    compiled = compile_(eager, options={"fallback_random": True})  # what is dropped is what was dropped without it

    @wraps(eager)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not module.training:
            return eager(*args, **kwargs)
        if args:
            return compiled(in_order(args[0]), *args[1:], **kwargs)
        return compiled(**{**kwargs, "hidden_states": in_order(kwargs["hidden_states"])})

    setattr(module, name, call)


def in_order(hidden: Any) -> Any:
    """`hidden` [s, b, h] with the strides that a new tensor of its shape has.

    What comes from the embedding has others than what comes from a layer, be it along an axis of length 1, and the
    compiler would make each layer twice.
    """
    rows, columns, width = hidden.shape
    if hidden.stride() == (columns * width, width, 1):
        return hidden
    return hidden.reshape(rows * columns, width).view(rows, columns, width)


def _only_multiplies(module: Any) -> bool:
    """Whether Megatron's autograd function for this linear, in which the compiler sees nothing, does no more than
    autograd does: neither talks to other ranks nor adds to the gradient's buffer. DDP's hooks hang on the parameters.
    """
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear

    return (
        isinstance(module, ColumnParallelLinear | RowParallelLinear)
        and module.tp_group.size() == 1
        and not module.gradient_accumulation_fusion
        and getattr(module, "gtp_remat_size", 1) == 1
    )


def product(input: Any, weight: Any, bias: Any = None, **_: Any) -> Any:
    """input · weightᵀ + bias: [..., i], [o, i], [o] → [..., o]."""
    output = input @ weight.t()
    return output if bias is None else output + bias
