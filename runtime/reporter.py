"""What is made of the training's news: metrics.jsonl, the progress line, the run record."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .answers.answer import DEFINITIONS, Evaluated
from .answers.answer import FILE as ANSWERS
from .answers.log import AnswerLog
from .answers.said import said
from .atomic import replacing
from .hooks import require_apart
from .megatron import Flops, Observer, Step
from .memory import memory_bytes
from .metrics import PREFIX, Metrics
from .progress import Progress
from .record import Stopwatch
from .trackers.follow import Follower

type LengthsIn = Callable[[int], Sequence[int]]  # of the rows of a global batch, by its number


class Reporter(Observer):
    """The rank that knows the loss writes it down and shows it."""

    def __init__(
        self,
        run_path: Path,
        *,
        lengths_in: LengthsIn,
        ranks: int,
        progress: Progress,
        prune: Callable[[], None] = lambda: None,
        trackers: Sequence[Follower] = (),
        board: Callable[[int, Mapping[str, float | None]], None] = lambda *_: None,
    ) -> None:
        """lengths_in: for datasets that do not know theirs; prune: removes checkpoints that need not stay; trackers:
        what else gets the metrics; board: puts the scores of answers, at an iteration, where Megatron puts the losses.
        """
        self._board = board
        self._trackers = trackers
        self._ranks = ranks
        self._prune = prune
        self._run_path = run_path
        self._lengths_in = lengths_in
        self._flops: Flops | None = None
        self._progress = progress
        self._watch = Stopwatch()
        self._metrics: Metrics | None = None
        self._answers: AnswerLog | None = None
        self._others: Mapping[str, float] = {}  # of the last evaluation
        self._kept_to = -1
        self._lap_from = 0

    def begun(self, iteration: int, rows: Any, flops: Flops) -> None:
        # A dataset of the user's own may not know.
        self._lengths_in = getattr(rows, "lengths_in", self._lengths_in)
        self._flops = flops
        # A run that starts anew evaluates its first weights anew.
        self._kept_to = iteration or -1
        is_trained = iteration >= self._progress.total
        self._metrics = Metrics(self._run_path, resumed_at=self._kept_to, evaluates=is_trained)
        if (self._run_path / ANSWERS).is_file():  # what it says of iterations to come is of before
            self._answers = AnswerLog(self._run_path, resumed_at=self._kept_to)
        for tracker in self._trackers:
            tracker.begin()
        self._lap_from = iteration
        if is_trained:
            self._progress.say(f"iteration {iteration} has yet to be evaluated")
        else:
            self._progress.say(f"training, iteration {iteration + 1} of {self._progress.total} is next")
        self._watch.lap()

    def stepped(self, step: Step) -> None:
        """Both speeds count the tokens of rows, and no padding."""
        done = range(self._lap_from, step.iteration)
        seconds = self._watch.lap()
        self._lap_from = step.iteration
        lengths = [length for batch in done for length in self._lengths_in(batch)]
        speed = sum(lengths) / seconds
        tflops = self._flops(lengths) / seconds / self._ranks / 1e12 if self._flops else 0.0
        self._write(
            iteration=step.iteration,
            lm_loss=step.loss,
            learning_rate=step.learning_rate,
            grad_norm=step.grad_norm,
            tokens_per_second=round(speed, 1),
            tflops_per_rank=float(f"{tflops:.4g}"),
            memory_bytes=memory_bytes(),
            supervised_tokens=step.tokens,
            **step.others,
        )
        left = (self._progress.total - step.iteration) * seconds / len(done)
        self._progress.step(step.iteration, loss=step.loss, tokens_per_second=speed, tflops=tflops, seconds_left=left)

    def evaluated(self, iteration: int, *, loss: float, others: Mapping[str, float]) -> None:
        self._others = others
        named = {f"{PREFIX}{name}": value for name, value in others.items()}
        self._write(iteration=iteration, valid_loss=loss, **named)
        self._progress.say(f"iteration {iteration}: validation loss {loss:.4f}")

    def answered(self, iteration: int, answers: Evaluated) -> None:
        """The answers first: trackers look for them when they get the scores. UserError where a score has the name of
        something that was measured besides the loss.
        """
        require_apart(self._others, answers.values)
        if self._answers is None:
            self._answers = AnswerLog(self._run_path, resumed_at=self._kept_to)
        with replacing(self._run_path / DEFINITIONS) as file:
            file.write(json.dumps(dict(answers.definitions), indent=2, ensure_ascii=False) + "\n")
        self._answers.write(iteration, answers.answers, answers.matches)
        self._write(iteration=iteration, **{f"{PREFIX}{name}": value for name, value in answers.values.items()})
        self._board(iteration, answers.values)
        for line in [*said(iteration, answers.values), *answers.notes]:
            self._progress.say(line)

    def saved(self) -> None:
        self._prune()

    def paused(self) -> None:
        self._watch.pause()

    def went_on(self) -> None:
        self._watch.go_on()

    def ended(self, outcome: str) -> None:
        self._progress.close()
        if self._metrics is not None:
            self._metrics.close()
        if self._answers is not None:
            self._answers.close()
        for tracker in self._trackers:
            tracker.close(outcome)

    def _write(self, **fields: Any) -> None:
        if self._metrics is not None:
            line = self._metrics.write(**fields)
            for tracker in self._trackers:
                tracker.send(line)
