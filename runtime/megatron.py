"""The only module that knows Megatron's versions: what it is called, how it is started, what is mended in it."""

import contextlib
import importlib
import inspect
import io
import multiprocessing
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.util import find_spec
from multiprocessing.managers import SyncManager
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UserError
from .process import die_with_parent
from .record import epoch_seconds

type LayerSpec = Callable[..., Any]


class Observer:
    """What the training tells. Every rank has one; this one, of the ranks that report nothing, does not listen."""

    def begun(self, iteration: int) -> None:
        """Model, optimizer and data are ready; `iteration` are done."""

    def stepped(
        self, iteration: int, *, loss: float, learning_rate: float | None, grad_norm: float | None, tokens: int
    ) -> None:
        """A logged iteration: `loss` is the mean over the `tokens` supervised tokens of its global batch."""

    def evaluated(self, iteration: int, *, loss: float) -> None:
        """`loss` is the mean over all supervised tokens of the evaluation."""

    def paused(self) -> None:
        """What follows, an evaluation or a checkpoint, is no training."""

    def went_on(self) -> None:
        """Training goes on."""


def require_target(target: str) -> str:
    """The installed version, such as `0.19.2`. UserError when there is none or it is not the target's release line."""
    spec = find_spec("megatron.core") if find_spec("megatron") else None
    if spec is None or spec.origin is None:
        raise UserError(
            "Megatron is not installed here",
            help=f'`pip install "megatron-core[training]=={target}.*"`, or set `megatron.path` to a checkout',
        )
    # read, not imported: importing megatron.core takes seconds, and its __version__ ends with a git hash
    text = (Path(spec.origin).parent / "package_info.py").read_text(encoding="utf-8")
    found = ".".join(re.findall(r"^(?:MAJOR|MINOR|PATCH) = (\d+)", text, re.MULTILINE))
    if found.split(".")[:2] != target.split(".")[:2]:
        raise UserError(
            f"this build is for Megatron {target}, installed is {found} (`{Path(spec.origin).parent}`)",
            help=f'`pip install "megatron-core[training]=={target}.*"`, or set `megatron.target` and compile again',
        )
    return found


def require_layers(transformer_impl: str) -> None:
    """UserError when the recipe asks for Transformer Engine and this machine has none."""
    if transformer_impl == "transformer_engine" and find_spec("transformer_engine") is None:
        raise UserError(
            "`model.transformer_impl: transformer_engine` and Transformer Engine is not installed here",
            help="`pip install --no-build-isolation transformer_engine[pytorch]` on a machine with CUDA, or set "
            "`model.transformer_impl: local` (torch-native layers)",
        )


def read_argument_file(path: Path) -> list[str]:
    """One option with its values per line, quoted as in a shell, `#` begins a comment. Megatron reads no such file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [word for line in lines for word in shlex.split(line, comments=True)]


def parse(arguments: Sequence[str]) -> Any:
    """Megatron's own parser and validator, which also set its global state. UserError for what they refuse."""
    from megatron.training.arguments import parse_and_validate_args

    complaint, argv = io.StringIO(), sys.argv
    sys.argv = [argv[0], *arguments]
    try:
        with contextlib.redirect_stderr(complaint):
            return parse_and_validate_args()
    except SystemExit:
        said = complaint.getvalue().strip().splitlines()
        raise UserError(_refusal(said[-1].partition("error: ")[2] if said else ""), help=_ARGUMENTS_HELP) from None
    except (AssertionError, ValueError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(_refusal(str(error) or f"it requires `{where.line}`"), help=_ARGUMENTS_HELP) from error
    finally:
        sys.argv = argv


_ARGUMENTS_HELP = "change the recipe key that stands behind the option in megatron.args, and compile again"


def _refusal(text: str) -> str:
    return f"Megatron refuses its arguments: {text}"


def train(arguments: Sequence[str], step: ModuleType, layer_spec: LayerSpec | None, observer: Observer) -> int:
    """Run Megatron's pretrain() to its end and return the last iteration.

    step: the generated module, with `forward_step` and `train_valid_test_datasets_provider`; layer_spec: what the
    layers are made of, None for Megatron's own choice.
    """
    started = epoch_seconds()
    training = importlib.import_module("megatron.training.training")
    utils = importlib.import_module("megatron.training.argument_utils")
    from megatron.core.enums import ModelType

    skip_compilation()
    mend_distributed_optimizer()
    mend_save_helper()
    mend_random_state(training)
    args = parse(arguments)
    config = utils.gpt_config_from_args(args)
    if layer_spec is not None:
        config.transformer_layer_spec = layer_spec
    news = News(args, observer)
    news.listen(training)
    training.set_startup_timestamps(program_start=started, main_entry=started)
    call = {
        "cfg_container": utils.pretrain_cfg_container_from_args(args, config),
        "train_valid_test_dataset_provider": news.announcing(step.train_valid_test_datasets_provider),
        "model_type": ModelType.encoder_or_decoder,
        "forward_step_func": news.counting(step.forward_step),
    }
    if missing := set(call) - set(inspect.signature(training.pretrain).parameters):
        raise UserError(
            f"this Megatron's pretrain() takes no `{min(missing)}`",
            help="its version says 0.19 but it is another; use the released wheel or checkout",
        )
    try:
        training.pretrain(**call)
    except SystemExit as stop:  # how Megatron ends at --exit-interval, and also how it gives up, both with status 0
        if stop.code or not news.has_trained:
            raise RuntimeError("Megatron gave up before the first iteration; its log says why") from stop
    return news.iteration


def skip_compilation() -> None:
    """The wheel ships the dataset helpers compiled and without the Makefile that Megatron runs to build them."""
    datasets: Any = importlib.import_module("megatron.core.datasets.utils")
    if find_spec("megatron.core.datasets.helpers_cpp") is not None:
        datasets.compile_helpers = lambda: None


def mend_distributed_optimizer() -> None:
    """Let the distributed optimizer resume over torch's AdamW, which Megatron takes where TE and Apex are missing.

    Three defects of 0.19. To load, Megatron asks the fresh optimizer for its state, and `state_dict()` asserts that all
    its parameters agree on one step, of which a fresh optimizer has none (`len(steps) == 1` fails on zero). Then
    `load_state_dict()` copies into fp32 parameters in place, which autograd forbids for a view of a leaf. And it leaves
    all parameters one common step tensor, set back to what it was before loading: AdamW would count it up once per
    parameter and correct the bias of its averages as if they were young. The saved step is in the parameter groups.
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
                self.optimizer.state[parameter]["step"] = torch.tensor(step)

    cls.state_dict, cls.load_state_dict = state_dict, load_state_dict


def mend_save_helper() -> None:
    """Let the process that collects the results of checkpoint writers die with its rank.

    Megatron spawns it at the first save and leaves it to Python to end it, which a SIGKILL of the rank prevents: each
    killed run would leave half a gigabyte behind.
    """
    module: Any = importlib.import_module("megatron.core.dist_checkpointing.strategies.filesystem_async")

    def results_queue(mp_mode: str = "spawn") -> Any:
        if module._results_queue is None:
            manager = SyncManager(ctx=multiprocessing.get_context(mp_mode))
            manager.start(initializer=die_with_parent)
            module._results_queue = manager.Queue()
        return module._results_queue

    module.get_write_results_queue = results_queue


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

    _wrap(training, "build_train_valid_test_data_iterators", (), build)


def _fill_empty_state(optimizer: Any) -> None:
    import torch

    inner = optimizer.optimizer
    if len(inner.state) == 0:
        optimizer.init_state_fn(inner, optimizer.config)
        for values in inner.state.values():
            values["step"] = torch.tensor(0.0)


class News:
    """Listens to Megatron's own logging, evaluation and checkpointing and tells the observer."""

    def __init__(self, args: Any, observer: Observer) -> None:
        self._args = args
        self._observer = observer
        self._counts: list[Any] = []  # supervised tokens of this rank's micro-batches since the last iteration
        self._evaluated: set[int] = set()
        self._valid_losses: dict[str, Any] = {}
        self.iteration = 0
        self.has_trained = False

    def listen(self, training: ModuleType) -> None:
        _wrap(training, "training_log", ("iteration", "loss_dict", "learning_rate", "grad_norm"), self._log)
        _wrap(training, "evaluate", (), self._evaluate)
        _wrap(training, "evaluate_and_print_results", ("iteration",), self._evaluate_and_print)
        _wrap(training, "save_checkpoint_and_time", ("iteration",), self._aside)

    def announcing(self, provider: Callable[..., Any]) -> Callable[..., Any]:
        """The datasets provider, which pretrain() calls once the checkpoint is loaded and `args.iteration` is known."""

        @wraps(provider)
        def announced(*provider_args: Any, **kwargs: Any) -> Any:
            if not kwargs.get("vp_stage"):
                self.iteration = int(self._args.iteration)
                self._observer.begun(self.iteration)
            return provider(*provider_args, **kwargs)

        announced.is_distributed = getattr(provider, "is_distributed", False)  # type: ignore[attr-defined]
        return announced

    def counting(self, forward_step: Callable[..., Any]) -> Callable[..., Any]:
        """The forward step, with its loss function watched: the second of its three results is the token count."""
        import torch

        @wraps(forward_step)
        def counted(*args: Any, **kwargs: Any) -> Any:
            output, loss_func = forward_step(*args, **kwargs)

            def loss_and_count(*loss_args: Any, **loss_kwargs: Any) -> Any:
                result = loss_func(*loss_args, **loss_kwargs)
                if torch.is_grad_enabled():
                    self._counts.append(result[1].detach())
                return result

            return output, loss_and_count

        return counted

    def _log(self, call: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        result, counts = run(), self._counts
        self.iteration, self.has_trained, self._counts = call["iteration"], True, []
        if self.iteration % self._args.log_interval == 0 and counts:  # only the last pipeline stage counts
            self._observer.stepped(
                self.iteration,
                loss=float(call["loss_dict"]["lm loss"]),
                learning_rate=_number(call["learning_rate"]),
                grad_norm=_number(call["grad_norm"]),
                tokens=_total(counts),
            )
        return result

    def _evaluate(self, _: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        result = run()
        self._valid_losses = result[0] or {}
        return result

    def _evaluate_and_print(self, call: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        iteration = call["iteration"]
        if iteration in self._evaluated:  # pretrain() evaluates the last iteration once more after the loop
            return None
        self._evaluated.add(iteration)
        result = self._aside(call, run)
        if "lm loss" in self._valid_losses:
            self._observer.evaluated(iteration, loss=float(self._valid_losses["lm loss"]))
        return result

    def _aside(self, _: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        """Not to be counted as time spent training."""
        self._observer.paused()
        result = run()
        self._observer.went_on()
        return result


def _total(counts: Sequence[Any]) -> int:
    """Over the micro-batches, and over the ranks that share the global batch."""
    import torch
    from megatron.core import mpu

    total = torch.stack(list(counts)).sum(dtype=torch.int64)
    torch.distributed.all_reduce(total, group=mpu.get_data_parallel_group(with_context_parallel=True))
    return int(total)


def _wrap(
    module: ModuleType,
    name: str,
    needed: Sequence[str],
    around: Callable[[Mapping[str, Any], Callable[[], Any]], Any],
) -> None:
    original = getattr(module, name)
    signature = inspect.signature(original)
    if missing := [parameter for parameter in needed if parameter not in signature.parameters]:
        raise UserError(f"this Megatron's {name}() takes no `{missing[0]}`", help="use a released version")

    @wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(signature.bind(*args, **kwargs).arguments, lambda: original(*args, **kwargs))

    setattr(module, name, wrapper)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
