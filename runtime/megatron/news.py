"""Megatron's own logging, evaluation and checkpointing, listened to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from types import ModuleType
from typing import Any

from .lines import START, evaluate_first, step_flops
from .saving import saving
from .wrapping import wrap_function

LOSS = "lm loss"

# Lengths of rows in tokens → floating-point operations of a training step on them, on all ranks together.
type Flops = Callable[[Sequence[int]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An iteration: `loss` is the mean over the `tokens` supervised tokens of its global batch, `others` are means by
    name that the loss function reports besides.
    """

    iteration: int
    loss: float
    learning_rate: float | None
    grad_norm: float | None
    tokens: int
    others: Mapping[str, float]


class Observer:
    """What the training tells. Every rank has one; this one, of the ranks that report nothing, does not listen."""

    def begun(self, iteration: int, rows: Any, flops: Flops) -> None:
        """Model, optimizer and data are ready; `iteration` are done. `rows` is the training dataset."""

    def stepped(self, step: Step) -> None:
        """A logged iteration."""

    def evaluated(self, iteration: int, *, loss: float, others: Mapping[str, float]) -> None:
        """`loss` is the mean over all supervised tokens of the evaluation; `others` as in a `Step`."""

    def answered(self, iteration: int, answers: Any) -> None:
        """What `Asking.ask` returned on this rank after the evaluation, if it is not None."""

    def saved(self) -> None:
        """A checkpoint is written, or being written where saving is asynchronous."""

    def paused(self) -> None:
        """What follows, an evaluation or a checkpoint, is no training."""

    def went_on(self) -> None:
        """Training goes on."""

    def ended(self, outcome: str) -> None:
        """Nothing more will come: the run is complete, was stopped, or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is done besides at an evaluation: `ask` is called on every rank with its model chunks, in evaluation mode
    and without gradients, at each evaluation or at those `at_ends` of the training. None asks nothing.

    on_start: evaluate before the first iteration too.
    """

    ask: Callable[[Sequence[Any]], Any] | None = None
    at_ends: bool = False
    on_start: bool = False


class News:
    """Listens to Megatron's own logging, evaluation and checkpointing and tells the observer."""

    def __init__(self, args: Any, observer: Observer, asking: Asking) -> None:
        self._args = args
        self._observer = observer
        self._asking = asking
        self._evaluating = 0  # the iteration that is evaluated
        self._answers: Any = None
        self._training: Any = None
        self._counts: list[Any] = []  # supervised tokens of this rank's micro-batches since the last iteration
        self._evaluated: set[int] = set()
        self._valid_losses: dict[str, Any] = {}
        self._rows: Any = None
        self.iteration = 0
        self.has_trained = False

    def listen(self, training: ModuleType) -> None:
        self._training = training
        wrap_function(training, "train", START, self._train)
        wrap_function(training, "training_log", ("iteration", "loss_dict", "learning_rate", "grad_norm"), self._log)
        wrap_function(training, "evaluate", (), self._evaluate)
        wrap_function(training, "evaluate_and_print_results", ("iteration",), self._evaluate_and_print)
        wrap_function(training, "save_checkpoint_and_time", ("iteration",), self._save)
        wrap_function(training, "maybe_finalize_async_save", (), self._finalize)

    def announcing(self, provider: Callable[..., Any]) -> Callable[..., Any]:
        """The datasets provider, which pretrain() calls once the checkpoint is loaded and `args.iteration` is known."""

        @wraps(provider)
        def announced(*provider_args: Any, **kwargs: Any) -> Any:
            datasets = provider(*provider_args, **kwargs)
            if not kwargs.get("vp_stage"):
                self._rows = datasets[0]
            return datasets

        announced.is_distributed = getattr(provider, "is_distributed", False)  # type: ignore[attr-defined]
        return announced

    def _train(self, call: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        # The processes that read data are forked by now. An observer may start threads, and a fork beside a thread
        # that is importing a module leaves a child that can hang at its own imports.
        self.iteration = int(self._args.iteration)
        self._observer.begun(self.iteration, self._rows, partial(step_flops, self._args))
        if self._asking.on_start and self.iteration == 0 and self._args.do_valid:
            evaluate_first(self._training, self._args, call)
        return run()

    def ask(self, chunks: Sequence[Any]) -> None:
        """Called by Megatron within an evaluation, as its `non_loss_data_func`."""
        asking, ends = self._asking, (0, self._args.train_iters)
        if asking.ask is not None and (not asking.at_ends or self._evaluating in ends):
            self._answers = asking.ask(chunks)

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
                Step(
                    iteration=self.iteration,
                    loss=float(call["loss_dict"][LOSS]),
                    learning_rate=_number(call["learning_rate"]),
                    grad_norm=_number(call["grad_norm"]),
                    tokens=_total(counts),
                    others=_others(call["loss_dict"]),
                )
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
        self._evaluating = iteration
        self._answers = None
        result = self._aside(call, run)
        if LOSS in self._valid_losses:
            losses = self._valid_losses
            self._observer.evaluated(iteration, loss=float(losses[LOSS]), others=_others(losses))
        if self._answers is not None:
            self._observer.answered(iteration, self._answers)
        return result

    def _save(self, call: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        result = self._aside(call, lambda: self._finalize(call, run))
        self._observer.saved()
        return result

    def _finalize(self, _: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        return saving(run, self._args.save, self.iteration)

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


def _others(losses: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in losses.items() if name != LOSS}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
