"""What is made of the training's news: metrics.jsonl, the progress line, the run record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .megatron import Observer
from .metrics import Metrics
from .progress import Progress
from .record import Stopwatch


class Reporter(Observer):
    """The rank that knows the loss writes it down and shows it."""

    def __init__(self, run_path: Path, *, positions: int, progress: Progress) -> None:
        """positions: those of a global batch, padding too."""
        self._run_path = run_path
        self._tokens_in: Callable[[int], int] = lambda _: positions
        self._progress = progress
        self._watch = Stopwatch()
        self._metrics: Metrics | None = None
        self._lap_from = 0

    def begun(self, iteration: int, rows: Any) -> None:
        # A dataset of the user's own may not know.
        self._tokens_in = getattr(rows, "tokens_in", self._tokens_in)
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
        """`tokens_per_second` counts the tokens of rows, and no padding."""
        done = range(self._lap_from, iteration)
        seconds = self._watch.lap() / len(done)
        self._lap_from = iteration
        speed = sum(map(self._tokens_in, done)) / len(done) / seconds
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
