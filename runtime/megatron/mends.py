"""What is mended in Megatron while it runs; each function says what is wrong there and what follows from it."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from ..atomic import replacing
from ..checkpoint.tracker import TRACKER
from .wrapping import wrap_function


def skip_compilation() -> None:
    """The wheel ships the dataset helpers compiled and without the Makefile that Megatron runs to build them."""
    datasets: Any = importlib.import_module("megatron.core.datasets.utils")
    if find_spec("megatron.core.datasets.helpers_cpp") is not None:
        datasets.compile_helpers = lambda: None


def mend_distributed_optimizer() -> None:
    """Let the distributed optimizer resume over torch's AdamW, which Megatron takes where TE and Apex are missing.

    Four defects. To load, Megatron asks the fresh optimizer for its state, and `state_dict()` asserts that all
    its parameters agree on one step, of which a fresh optimizer has none (`len(steps) == 1` fails on zero). Then
    `load_state_dict()` copies into fp32 parameters in place, which autograd forbids for a view of a leaf. And it leaves
    all parameters one common step tensor, set back to what it was before loading: AdamW would count it up once per
    parameter and correct the bias of its averages as if they were young. The saved step is in the parameter groups.
    States that can be resharded are read without one, and then asked for it.
    """
    import torch

    module = importlib.import_module("megatron.core.optimizer.distrib_optimizer")
    cls = module.DistributedOptimizer
    if module.HAVE_APEX_OR_TE or hasattr(cls.state_dict, "__wrapped__"):
        return
    save, load = cls.state_dict, cls.load_state_dict

    @wraps(save)
    def state_dict(self: Any) -> Any:
        _fill_empty_state(self)
        return save(self)

    @wraps(load)
    def load_state_dict(self: Any, state: Any) -> None:
        with torch.no_grad():
            load(self, state)
        for group in self.optimizer.param_groups:
            step = float(group.pop("step"))
            for parameter in group["params"]:
                self.optimizer.state[parameter]["step"] = step_of(step, parameter, group)

    fill = cls._set_main_param_and_optimizer_states

    @wraps(fill)
    def filled(self: Any, model_param: Any, tensors: dict[str, Any]) -> None:
        fill(self, model_param, {"step": None, **tensors})

    cls.state_dict, cls.load_state_dict = state_dict, load_state_dict
    cls._set_main_param_and_optimizer_states = filled


def mend_learning_rate() -> None:
    """Let a run that continues another's state train at its own learning rate.

    `--override-opt-param-scheduler` is meant for that, but Megatron tells parameter groups apart by their `max_lr` and
    `min_lr`, too, and finds none in a checkpoint of another rate (KeyError or ValueError).
    """
    plain: Any = importlib.import_module("megatron.core.optimizer.optimizer").MegatronOptimizer
    distributed: Any = importlib.import_module("megatron.core.optimizer.distrib_optimizer").DistributedOptimizer
    pair, load = plain._filter_and_reorder_param_groups, distributed.load_state_dict

    @wraps(pair)
    def paired(current: Any, saved: Any) -> Any:
        _adopt_rates(current, saved)
        return pair(current, saved)

    @wraps(load)
    def loaded(self: Any, state: Any) -> None:
        if not self.is_stub_optimizer:
            _adopt_rates(self.optimizer.param_groups, state["optimizer"]["param_groups"])
        load(self, state)

    plain._filter_and_reorder_param_groups = staticmethod(paired)
    distributed.load_state_dict = loaded


def _adopt_rates(current: Sequence[dict[str, Any]], saved: Sequence[dict[str, Any]]) -> None:
    # groups with rates of their own (`--decoupled-lr`) stay as they are
    rates = [{(group.get("max_lr"), group.get("min_lr")) for group in groups} for groups in (current, saved)]
    if all(len(pairs) == 1 for pairs in rates):
        for group in saved:
            group["max_lr"], group["min_lr"] = next(iter(rates[0]))


def mend_adam(fused: bool) -> None:
    """Let torch's AdamW step all parameters in one kernel if `fused`, and as torch chooses if not.

    Megatron takes it where TE and Apex are missing, and passes no such choice on. And a checkpoint brings the parameter
    groups of the run that wrote it, with its choice: a run that goes on from it would step as that one did.
    """
    from torch.optim import Adam, AdamW

    cls: Any = importlib.import_module("megatron.core.optimizer.optimizer").MegatronOptimizer
    init = cls.__init__
    own = {"fused": True, "foreach": False} if fused else {"fused": None, "foreach": None}

    def keep(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "param_groups": [{**group, **own} for group in state["param_groups"]]}

    @wraps(init)
    def initialized(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(optimizer, Adam | AdamW):
            for group in (optimizer.defaults, *optimizer.param_groups):
                group.update(own)
            optimizer.register_load_state_dict_pre_hook(keep)
        init(self, optimizer, *args, **kwargs)

    cls.__init__ = initialized


def mend_tracker() -> None:
    """Let the file that names the newest checkpoint change at once.

    Megatron empties it and then writes it: a kill between the two, or a full disk, would leave a run whose checkpoints
    are whole and which nobody finds.
    """
    module: Any = importlib.import_module("megatron.training.checkpointing")
    if hasattr(module, "open_file"):  # up to 0.18
        module.open_file = _AtomicTracker(SimpleNamespace(open=module.open_file)).open
    elif not isinstance(module.maybe_msc, _AtomicTracker):
        module.maybe_msc = _AtomicTracker(module.maybe_msc)


class _AtomicTracker:
    """Megatron's access to files, with the tracker file written beside its place and renamed."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def open(self, path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "w" and "://" not in str(path) and Path(path).name == TRACKER:
            return replacing(Path(path))
        return self._files.open(path, mode, *args, **kwargs)


def mend_random_state(training: ModuleType) -> None:
    """Let building the data loaders leave the random state alone.

    Each draws a seed for its workers from torch's CPU generator, after a checkpoint has restored it. On the CPU device
    that generator also drives dropout, and a resumed run would drop other entries than an undisturbed one.
    """
    import torch

    def build(_: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        state = torch.get_rng_state()
        iterators = run()
        torch.set_rng_state(state)
        return iterators

    wrap_function(training, "build_train_valid_test_data_iterators", (), build)


def mend_packed_rotation() -> None:
    """Let the rotary embedding of a pack be applied at once.

    Megatron asks the GPU in every layer, for queries and for keys, where the documents of the pack end, and waits for
    the answer. And 0.19 turns each document by itself and copies it to its place, of which the backward pass copies
    the gradients of the whole pack. The angles are the same, and so are the results.
    """
    from ..packed import places_of

    rope: Any = importlib.import_module("megatron.core.models.common.embeddings.rope_utils")
    rotate = rope._apply_rotary_pos_emb_thd
    if hasattr(rotate, "__wrapped__"):
        return

    @wraps(rotate)
    def rotated(heads: Any, cu_seqlens: Any, angles: Any, *args: Any, **kwargs: Any) -> Any:
        places = places_of(cu_seqlens)
        if places is None or args:
            return rotate(heads, cu_seqlens, angles, *args, **kwargs)
        layout = {name: value for name, value in kwargs.items() if name != "cp_group"}
        return rope._apply_rotary_pos_emb_bshd(heads.unsqueeze(1), angles[places], **layout).squeeze(1)

    rope._apply_rotary_pos_emb_thd = rotated


def mend_query_projection() -> None:
    """Let multi-latent attention without a narrow query layer have no norm in its place (DeepSeek-V2-Lite).

    For `--qk-layernorm` without `--q-lora-rank`, 0.19 builds the query projection with a norm of its own, which would
    normalize a second time what the layer's first norm has normalized; the published model has none there, and
    torch-native layers, which have no such projection, cannot be built at all.
    """
    if find_spec("megatron.core.transformer.mla_qk_norm_config") is None:
        return
    cls: Any = importlib.import_module("megatron.core.transformer.mla_qk_norm_config").QKNormConfigResolver
    resolve = cls._mla_fused_linear_or_default

    @wraps(resolve)
    def resolved(self: Any, module: Any, name: str) -> Any:
        if name == "linear_q_proj":
            return module or self.linear_impl
        return resolve(self, module, name)

    cls._mla_fused_linear_or_default = resolved


def mend_gradient_norm() -> None:
    """Let the norm of the gradients be taken without waiting for the GPU once for each of them.

    Where TE and Apex are missing, Megatron collects the norms of the tensors in a list on the host. The CPU device has
    its own (`cpu.l2_norm`).
    """
    module: Any = importlib.import_module("megatron.core.optimizer.clip_grads")
    if module.l2_norm_impl is getattr(module, "local_multi_tensor_l2_norm", None):
        module.l2_norm_impl = gradient_norm


def gradient_norm(_chunk: Any, _overflow: Any, tensors: Sequence[Sequence[Any]], _each: Any) -> tuple[Any, None]:
    """The Euclidean norm of all `tensors` together, [1] float32, on their device."""
    import torch

    norms = torch._foreach_norm(list(tensors[0]), 2, dtype=torch.float32)
    return torch.stack(norms).norm().reshape(1), None


def _fill_empty_state(optimizer: Any) -> None:
    inner = optimizer.optimizer
    if len(inner.state) == 0:
        optimizer.init_state_fn(inner, optimizer.config)
        for group in inner.param_groups:
            for parameter in group["params"]:
                inner.state[parameter]["step"] = step_of(0.0, parameter, group)


def step_of(step: float, parameter: Any, group: Mapping[str, Any]) -> Any:
    """torch's AdamW counts its steps on the host, but for kernels that read them (`--optimizer-cuda-graph`)."""
    import torch

    is_read = group.get("capturable") or group.get("fused")
    return torch.tensor(step, dtype=torch.float32, device=parameter.device if is_read else "cpu")
