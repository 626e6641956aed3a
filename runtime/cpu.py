"""The CPU device: lets Megatron train on a machine without a GPU.

Megatron names CUDA in hundreds of places. Two means answer all of them. `OnCpu` watches every torch function and turns
a request for a CUDA device into one for the CPU. `STAND_INS` replaces those members of `torch.cuda` that would start
the driver. The collectives go over gloo, which is an argument (`--distributed-backend gloo`) and not settled here.
"""

import ctypes
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed import ReduceOp, distributed_c10d
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


def activate() -> None:
    """Make this process a CPU process; does nothing where CUDA works. Call it before Megatron is imported."""
    if torch.cuda.is_available():
        return
    _activate_torch()
    _activate_megatron()


def _activate_torch() -> None:
    # Megatron fuses small functions with torch.compile, which on a CPU costs a C++ build per process; told so, torch
    # would still import its compilers for them, which is most of a second
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    torch.compile = _uncompiled
    # Megatron insists on it for tensor and context parallelism, where it orders kernels of a GPU
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    _keep_memory()
    OnCpu().__enter__()  # type: ignore[no-untyped-call]
    for name, stand_in in STAND_INS.items():
        setattr(torch.cuda, name, stand_in)
    # data loaders with workers would start a thread that pins memory
    torch.accelerator.is_available = lambda: False
    # kept by name in torch.cuda.random as well, where Megatron's RNG tracker looks
    torch.cuda.random.get_rng_state = get_rng_state
    torch.cuda.random.set_rng_state = set_rng_state  # type: ignore[assignment]
    torch.distributed.all_reduce, torch.distributed.barrier = all_reduce, barrier
    # torch's optimizers ask the driver whether a CUDA graph is being captured (the name changed in torch 2.14)
    for check in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(torch.optim.Optimizer, check):
            setattr(torch.optim.Optimizer, check, lambda _: None)


def _keep_memory() -> None:
    """Let glibc keep what a step frees. It would give much of it back to the system, which clears each page anew in the
    next step: three hundredths of its time for a small model.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGEST)


# as in glibc's malloc.h; bytes
M_TRIM_THRESHOLD, KEPT = -1, (1 << 31) - 1
M_MMAP_THRESHOLD, LARGEST = -3, 1 << 25  # what glibc takes at most


@wraps(torch.compile)
def _uncompiled(model: Any = None, **_: Any) -> Any:
    """In the place of torch.compile, called or as a decorator."""
    return model if model is not None else lambda function: function


def let_compile() -> None:
    """Make torch's compiler work here for who asks it by `inspect.unwrap(torch.compile)`; `activate` comes before."""
    from torch._dynamo.callback import on_compile_end, on_compile_start

    os.environ.pop("TORCHDYNAMO_DISABLE", None)
    # while it compiles it would ask the driver for the GPU that `STAND_INS` claims
    on_compile_start(lambda *_: setattr(torch.cuda, "is_available", _always(False)))
    on_compile_end(lambda *_: setattr(torch.cuda, "is_available", STAND_INS["is_available"]))


def claim_use(is_used: bool) -> None:
    """Claim that the GPU which is not there is in use, or not any more. Where there is one this does nothing."""
    if torch.cuda.is_available is STAND_INS["is_available"]:
        torch.cuda.is_initialized = _always(True) if is_used else _is_initialized


_is_initialized = torch.cuda.is_initialized


def all_reduce(tensor: Any, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Any:
    """torch's, which changes nothing in a group of one rank. Megatron calls ten of them in each step, whatever the
    groups, and gloo hands each to a thread and waits for it.
    """
    if _is_alone(group):
        return Done() if async_op else None
    return _all_reduce(tensor, op, group, async_op)


def barrier(group: Any = None, async_op: bool = False, *args: Any, **kwargs: Any) -> Any:
    """torch's, where there is somebody to wait for."""
    if _is_alone(group):
        return Done() if async_op else None
    return _barrier(group, async_op, *args, **kwargs)


_all_reduce, _barrier = torch.distributed.all_reduce, torch.distributed.barrier


def _is_alone(group: Any) -> bool:
    # what a coalescing manager collects it also carries out
    return torch.distributed.get_world_size(group) == 1 and not distributed_c10d._world.pg_coalesce_state


class Done:
    """What an asynchronous collective returns, when there is nothing to do."""

    def wait(self, *_: Any) -> bool:
        return True

    def is_completed(self) -> bool:
        return True


def _activate_megatron() -> None:
    # its RNG tracker goes past torch.cuda's functions to the driver's generators
    from megatron.core.tensor_parallel import random

    random._set_cuda_rng_state = set_rng_state
    random._get_cuda_rng_state = get_rng_state
    from megatron.core.optimizer import clip_grads

    if hasattr(clip_grads, "local_multi_tensor_l2_norm"):
        clip_grads.l2_norm_impl = l2_norm
    from .megatron.lean_layers import use_lean_layers

    use_lean_layers()
    # the tracker warns when the CPU's generator moved inside a fork; here that is the one in use
    logging.getLogger(random.__name__).setLevel(logging.ERROR)


def l2_norm(_chunk: Any, _overflow: Any, tensors: list[list[torch.Tensor]], _each: Any) -> tuple[torch.Tensor, None]:
    """The Euclidean norm of all `tensors` together, [1] float32, in the place of a fused kernel of a GPU.

    torch adds up float32 in float32 on a CPU: of the norm of three million gradients it loses 5e-5, and another layout
    loses another share.
    """
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors[0]]
    return torch.stack(norms).norm().to(torch.float32).reshape(1), None


# what can name a device without the keyword
MOVES = frozenset(
    (torch.Tensor.cuda, torch.Tensor.pin_memory, torch.Tensor.record_stream, torch.Tensor.to, torch.Tensor.type)
)


class OnCpu(TorchFunctionMode):
    """While entered, no torch function reaches a CUDA device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # a training step comes here a thousand times, for each attribute of a tensor too, and hardly ever with a device
        if not kwargs:
            if func not in MOVES:
                return func(*args)
        elif func not in MOVES and "device" not in kwargs and "pin_memory" not in kwargs:
            return func(*args, **kwargs)
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.cuda, torch.Tensor.pin_memory):
            return args[0]  # it is where it should be, and without a driver no memory can be pinned
        if func is torch.Tensor.record_stream:
            return None
        if "device" in kwargs:
            kwargs["device"] = on_cpu(kwargs["device"])
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if func is torch.Tensor.to:
            args = (args[0], *(on_cpu(arg) if isinstance(arg, str | torch.device) else arg for arg in args[1:]))
        if func is torch.Tensor.type:
            return _tensor_type(func, args, kwargs)
        return func(*args, **kwargs)


def on_cpu(device: Any) -> Any:
    """The CPU for any CUDA device, however it is spelt (`cuda`, `cuda:1`, an index); other devices as they are."""
    if isinstance(device, int):
        return CPU
    if isinstance(device, str | torch.device) and torch.device(device).type == "cuda":
        return CPU
    return device


def _tensor_type(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # Megatron's optimizers sort parameters by the type's name and know the CUDA names only
    args = tuple(arg.replace("torch.cuda.", "torch.") if isinstance(arg, str) else arg for arg in args)
    out = func(*args, **kwargs)
    return out.replace("torch.", "torch.cuda.") if isinstance(out, str) else out


def get_rng_state(*_: Any, **__: Any) -> torch.Tensor:
    """There is one generator; what Megatron saves as the CUDA state is the CPU's."""
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, *_: Any, **__: Any) -> None:
    torch.set_rng_state(state)


class Stream:
    """Work on a CPU is done when the call returns: there is nothing to order or to wait for."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: Any) -> None: ...

    def wait_stream(self, _: Any) -> None: ...

    def wait_event(self, _: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, *_: Any) -> "Event":
        return Event()


class Event:
    """Has always happened."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def wait(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 0.0


def _always(value: Any) -> Callable[..., Any]:
    """A function of its own each time: torch's compiler lists torch.cuda by object and refuses one with two names."""
    return lambda *_, **__: value


# compute capability 8.0: new enough for bf16, too old for the paths that need fp8 or Hopper
_PROPERTIES = SimpleNamespace(
    name="cpu", major=8, minor=0, total_memory=1 << 34, multi_processor_count=1, gcnArchName="", warp_size=32
)

STAND_INS: dict[str, Any] = {
    # initialize_megatron asserts that CUDA is there
    "is_available": _always(True),
    "device_count": _always(1),
    "current_device": _always(CPU),
    "set_device": _always(None),
    "get_device_properties": _always(_PROPERTIES),
    "get_device_capability": _always((8, 0)),
    "get_device_name": _always("cpu"),
    # timers and the schedules order work through streams and events
    "synchronize": _always(None),
    "Stream": Stream,
    "Event": Event,
    "current_stream": _always(Stream()),
    "default_stream": _always(Stream()),
    "stream": _always(Stream()),
    "set_stream": _always(None),
    "is_current_stream_capturing": _always(False),
    # weights are drawn under `manual_seed(tensor-parallel seed)`: as a no-op it would give every rank the same shard
    "manual_seed": lambda seed: torch.default_generator.manual_seed(seed),
    # torch.manual_seed passes its seed on to this one
    "manual_seed_all": _always(None),
    "get_rng_state": get_rng_state,
    "set_rng_state": set_rng_state,
    # reports of memory in the log
    "empty_cache": _always(None),
    "memory_allocated": _always(0),
    "max_memory_allocated": _always(0),
    "memory_reserved": _always(0),
    "max_memory_reserved": _always(0),
    "device_memory_used": _always(0),
    "memory_stats": _always({}),
    "reset_peak_memory_stats": _always(None),
    # legacy constructors in the gradient clipping
    "FloatTensor": torch.FloatTensor,
    "HalfTensor": torch.HalfTensor,
    "BFloat16Tensor": torch.BFloat16Tensor,
    "IntTensor": torch.IntTensor,
    # named ranges for a profiler that is not there
    "nvtx": SimpleNamespace(range_push=_always(0), range_pop=_always(0)),
}
