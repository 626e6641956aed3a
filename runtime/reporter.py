"""What is made of the training's news: metrics.jsonl, the progress line, the run record."""

from pathlib import Path

from .megatron import Observer
from .metrics import Metrics
from .progress import Progress
from .record import Stopwatch


class Reporter(Observer):
    """The rank that knows the loss writes it down and shows it."""

    def __init__(self, run_path: Path, *, tokens_per_iteration: int, progress: Progress) -> None:
        self._run_path = run_path
        self._tokens_per_iteration = tokens_per_iteration
        self._progress = progress
        self._watch = Stopwatch()
        self._metrics: Metrics | None = None
        self._lap_from = 0

    def begun(self, iteration: int) -> None:
        self._metrics = Metrics(self._run_path, resumed_at=iteration)
        self._lap_from = iteration
        if iteration < self._progress.total:
            self._progress.say(f"training, iteration {iteration + 1} of {self._progress.total} is next")
        else:
            self._progress.say(f"iteration {iteration} has yet to be evaluated")
        self._watch.lap()

    def stepped(
        self, iteration: int, *, loss: float, learning_rate: float | None, grad_norm: float | None, tokens: int
    ) -> None:
        """`tokens_per_second` counts every position of the batch, padding too: it measures the machine."""
        iterations = iteration - self._lap_from
        seconds = self._watch.lap() / iterations
        self._lap_from = iteration
        speed = self._tokens_per_iteration / seconds
        if self._metrics is not None:
            self._metrics.write(
                iteration=iteration,
                lm_loss=loss,
                learning_rate=learning_rate,
                grad_norm=grad_norm,
                tokens_per_second=round(speed, 1),
                supervised_tokens=tokens,
            )
        left = (self._progress.total - iteration) * seconds
        self._progress.step(iteration, loss=loss, tokens_per_second=speed, seconds_left=left)

    def evaluated(self, iteration: int, *, loss: float) -> None:
        if self._metrics is not None:
            self._metrics.write(iteration=iteration, valid_loss=loss)
        self._progress.say(f"iteration {iteration}: validation loss {loss:.4f}")

    def paused(self) -> None:
        self._watch.pause()

    def went_on(self) -> None:
        self._watch.go_on()

    def close(self) -> None:
        self._progress.close()
        if self._metrics is not None:
            self._metrics.close()
