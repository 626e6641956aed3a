"""A machine with GPUs that is made up: tensors without numbers that say they are on `cuda`, and ranks without others.

torch's FakeTensorMode gives shapes, types and devices, refuses operations that mix devices, and raises where a program
reads a number. torch's fake process group answers every collective at once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CHOSEN = 5  # how many are said to be chosen where the numbers of a mask would tell


class Nccl(TorchDispatchMode):
    """Refuses what NCCL refuses: a collective of a tensor that is not on a GPU. `called` are their names."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            places = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
            assert places <= {"cuda"}, f"{func} of a tensor on {places}"
            self.called.add(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


class Driver(TorchFunctionMode):
    """Pins no memory; where `chooses` is set, lets a mask choose CHOSEN entries, whatever it holds."""

    def __init__(self, *, chooses: bool = False) -> None:
        super().__init__()
        self._chooses = chooses

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        if not self._chooses:
            return func(*args, **kwargs)
        if func is torch.Tensor.nonzero:
            return args[0].new_zeros(CHOSEN, args[0].dim(), dtype=torch.int64)
        if func is torch.Tensor.__getitem__ and getattr(args[1], "dtype", None) == torch.bool:
            chosen = args[1].new_zeros(CHOSEN, dtype=torch.int64)
            return args[0].flatten(0, args[1].dim() - 1).index_select(0, chosen)
        return func(*args, **kwargs)


class Delivery(TorchFunctionMode):
    """Takes real tensors to a made-up GPU. `taken` are those that went there."""

    def __init__(self, gpu: FakeTensorMode) -> None:
        super().__init__()
        self._gpu = gpu
        self.taken: list[torch.Tensor] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to and args[1] == 0:
            self.taken.append(args[0])
            with self._gpu:
                return self._gpu.from_tensor(args[0]).to("cuda")
        return func(*args, **(kwargs or {}))


@contextmanager
def gpu(patch: Any) -> Iterator[FakeTensorMode]:
    """What asks for the driver is answered here. patch: pytest's monkeypatch."""
    from megatron.core.tensor_parallel import random

    patch.setattr(torch.cuda, "current_device", lambda: 0)
    patch.setattr(torch.cuda, "get_device_capability", lambda _=None: (9, 0))
    tracker = SimpleNamespace(fork=lambda *_: nullcontext(), is_initialized=lambda: True)
    patch.setattr(random, "_CUDA_RNG_STATE_TRACKER", tracker)
    patch.setattr(random, "_CUDA_RNG_STATE_TRACKER_INITIALIZED", True)
    with torch.compiler.set_stance("force_eager"):
        yield FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def ranks(*, last: bool = False, **layout: int) -> Iterator[None]:
    """Being the first or the last rank of `layout`, in Megatron's words, with two copies of the model."""
    from megatron.core import mpu
    from torch.testing._internal.distributed.fake_pg import FakeStore

    world = 2
    for size in layout.values():
        world *= size
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=world - 1 if last else 0, world_size=world)
    try:
        mpu.initialize_model_parallel(create_gloo_process_groups=False, **layout)
        yield
    finally:
        mpu.destroy_model_parallel()
        torch.distributed.destroy_process_group()


def model(**changes: Any) -> Any:
    """A chunk of Megatron's GPT model with our layers, as Megatron hands it to us before it moves it to the GPU."""
    from megatron.core import mpu
    from megatron.core.models.gpt import GPTModel
    from megatron.core.transformer import MLATransformerConfig, TransformerConfig

    from sftc.runtime.model import layer_spec

    tensor, stages = mpu.get_tensor_model_parallel_world_size(), mpu.get_pipeline_model_parallel_world_size()
    made_of = MLATransformerConfig if changes.get("multi_latent_attention") else TransformerConfig
    config = made_of(
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=stages,
        context_parallel_size=mpu.get_context_parallel_world_size(),
        num_layers=2 * stages,
        hidden_size=32,
        ffn_hidden_size=64,
        num_attention_heads=4,
        num_query_groups=2,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        apply_rope_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        bf16=True,
        params_dtype=torch.bfloat16,
        pipeline_dtype=torch.bfloat16,
        perform_initialization=False,  # there are no numbers to draw
        sequence_parallel=tensor > 1,
        calculate_per_token_loss=True,
        **changes,
    )
    return GPTModel(
        config,
        layer_spec(config),
        vocab_size=128,
        max_sequence_length=64,
        position_embedding_type="rope",
        share_embeddings_and_output_weights=False,
        pre_process=mpu.is_pipeline_first_stage(),
        post_process=mpu.is_pipeline_last_stage(),
    )


def wrapped(chunk: Any) -> Any:
    """As Megatron goes on: on the GPU, in its module for half precision. Fake parameters are moved by hand."""
    from megatron.core.transformer.module import Float16Module

    for module in chunk.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and not parameter.is_cuda:
                moved = torch.nn.Parameter(parameter.detach().cuda(), requires_grad=parameter.requires_grad)
                marks = {key: value for key, value in vars(parameter).items() if key not in vars(moved)}
                vars(moved).update(marks)
                module._parameters[name] = moved
    chunk.bfloat16 = lambda: chunk  # it is, and torch cannot exchange fake parameters
    return Float16Module(chunk.config, chunk)


def backward(output: torch.Tensor) -> dict[torch.Tensor, torch.Tensor]:
    """The gradient of each leaf. torch's own engine asks the driver for a stream, so the graph is walked here."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(output.grad_fn, False)]
    while stack:
        node, is_left = stack.pop()
        if is_left:
            order.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(following, False) for following, _ in node.next_functions]
    arrived: dict[Any, dict[int, Any]] = defaultdict(dict)
    arrived[output.grad_fn][output.output_nr] = torch.ones_like(output)
    found = {}
    for node in reversed(order):
        got = arrived.pop(node, None)
        if got is None:
            continue
        if hasattr(node, "variable"):
            found[node.variable] = got[0]
            continue
        grads = [got.get(at) for at in range(len(node._input_metadata))]
        edges = node.next_functions
        with torch.no_grad():
            if hasattr(node, "apply"):  # in Python: it returns something for what is no tensor, too
                every = node.apply(*grads)
                sent = [one for one, is_asked in zip(_tuple(every), node.needs_input_grad, strict=False) if is_asked]
                edges = [edge for edge in edges if edge[0] is not None]
            else:
                sent = _tuple(node(*grads))
        for (following, at), grad in zip(edges, sent, strict=True):
            if following is not None and grad is not None:
                before = arrived[following].get(at)
                grad = grad.to(following._input_metadata[at].dtype)  # as the engine does
                arrived[following][at] = grad if before is None else before + grad
    return found


def _tuple(one: Any) -> tuple[Any, ...]:
    return one if isinstance(one, tuple) else (one,)
