"""One rank of `sftc eval`: Megatron's pretrain(), which loads a checkpoint, skips the training and evaluates."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .. import megatron, progress
from ..atomic import replacing
from ..bundle import Bundle
from ..checkpoint.of_run import read_run
from ..checkpoint.start import Start, first
from ..data.dataset import PreparedData
from ..device import Device, choose
from ..errors import UserError
from ..hooks import require_apart
from ..launch import Evaluation as Iterations
from ..launch import Length, arguments_of
from ..model import model_of
from ..train import import_step
from .answer import Evaluated
from .evaluate import Evaluation
from .job import RESULT, Job, copies
from .log import AnswerLog
from .settings import Settings

# Options of the training that an evaluation must not follow: it writes no checkpoint, no log, and loads its own.
TRAINING = ("--save", "--tensorboard-dir", "--load", "--global-batch-size")


def run(path: Path) -> None:
    """`path` is the file of a Job. UserError for what the user or the machine has to mend."""
    job = Job.read(path)
    bundle, root = read_run(Path(job.run_path))
    os.chdir(root)
    reports = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    say = progress.say if reports else _keep_quiet
    data = PreparedData.open(job.store)
    device = choose(bundle.value("launch.device"))
    if device == "cpu":
        from .. import cpu

        cpu.activate()
    asked = job.samples or data.conversations("valid")
    settings = Settings.of_checkpoint(
        bundle.value, asked, max_new_tokens=job.max_new_tokens, answer_pattern=job.answer_pattern
    )
    evaluation = Evaluation(bundle, settings, data, reports=reports)
    batch = int(bundle.value("train.micro_batch_size")) * copies(bundle.value)
    samples = math.ceil(min(asked, data.rows("valid")) / batch) * batch

    def datasets(num_samples: Sequence[int], vp_stage: int | None = None) -> tuple[None, Any, None]:  # noqa: ARG001
        return None, data.valid(num_samples=num_samples[1], eval_samples=samples), None

    datasets.is_distributed = True  # type: ignore[attr-defined]
    begun = _begun(job, bundle)
    step: Any = SimpleNamespace(
        forward_step=import_step(bundle.path / "forward_step.py").forward_step,
        train_valid_test_datasets_provider=datasets,
    )
    say(f"iteration {job.iteration} of `{job.run_path}`: setting up takes some seconds")
    result = _Result()
    megatron.train(
        _arguments(job, bundle, device, begun, batch, samples),
        step,
        model_of(bundle, begun),
        result,
        asking=megatron.Asking(ask=evaluation),
    )
    if reports:
        _write(job, result)


def _begun(job: Job, bundle: Bundle) -> Start | None:
    """The start of the run, where the weights of that start are needed: frozen ones are in no checkpoint."""
    if job.iteration and bundle.value("lora.rank") is None:
        return None
    begun = first(bundle)
    if begun.iteration and not job.iteration:
        raise UserError(
            f"this run began with iteration {begun.iteration} of `{bundle.value('model.load')}`",
            help="evaluate the run that wrote it",
        )
    return begun


def _arguments(job: Job, bundle: Bundle, device: Device, begun: Start | None, batch: int, samples: int) -> list[str]:
    """The reviewed ones, but nothing is trained or saved."""
    iterations = ("--train-iters", str(max(job.iteration, 1))) if bundle.value("train.train_iters") is None else ()
    resume = Start(kind="resume", iteration=job.iteration, line="")
    arguments = arguments_of(
        bundle,
        resume if begun is None or job.iteration else begun,
        device,
        Length(iterations=job.iteration, arguments=iterations),
        Iterations(iterations=samples // batch, derived=True, line=""),
    )
    words, kept = iter(arguments), []
    for word in words:
        if word in TRAINING:
            next(words)
        else:
            kept.append(word)
    if job.iteration:
        kept += ["--load", job.save, "--ckpt-step", str(job.iteration), "--exit-on-missing-checkpoint"]
    return [*kept, "--global-batch-size", str(batch), "--skip-train", "--no-load-optim", "--no-load-rng"]


def _write(job: Job, result: "_Result") -> None:
    """The answers first: whoever sees the result finds them."""
    told = result.told
    assert told is not None
    folder = Path(job.output)
    log = AnswerLog(folder, resumed_at=-1)
    log.write(job.iteration, told.answers, told.matches)
    log.close()
    values = {"loss": told.loss, **result.others, **told.values}
    finite = {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}
    content = {"run": job.run_path, "iteration": job.iteration, "data": job.data, "values": finite}
    with replacing(folder / RESULT) as file:
        file.write(json.dumps({**content, "definitions": dict(told.definitions)}, indent=2, ensure_ascii=False) + "\n")
    for note in told.notes:
        progress.say(note)


class _Result(megatron.Observer):
    """What the evaluation tells."""

    def __init__(self) -> None:
        self.others: Mapping[str, float] = {}
        self.told: Evaluated | None = None

    def evaluated(self, _: int, *, loss: float, others: Mapping[str, float]) -> None:  # noqa: ARG002
        self.others = others

    def answered(self, _: int, answers: Any) -> None:
        require_apart(self.others, answers.values)
        self.told = answers


def _keep_quiet(_: str) -> None: ...
