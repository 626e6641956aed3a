"""Whole trainings of a tiny model on the CPU: what they leave behind, and that nobody can tell a run that was killed,
resumed or spread over ranks from one that was not.
"""

import json
import math
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from build_dir import digest_of, write_build, write_pointer
from ranks import PYTHON, Run, environment, processes_in, torchrun, train

from sftc.runtime.metrics import KEYS, MACHINE, read

pytestmark = pytest.mark.slow

OURS = re.compile(
    r"starting from random|each evaluation sees|Megatron 0\.19|training, iteration|iteration +\d+/8 |"
    r"iteration \d+: validation loss|done: iteration 8|  (checkpoint|metrics|TensorBoard) +run/"
)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return read(folder / "run" / "metrics.jsonl")


def what_was_learnt(folder: Path) -> list[dict[str, Any]]:
    """The metrics without what depends on the machine."""
    return [{k: v for k, v in line.items() if k not in MACHINE} for line in metrics_of(folder)]


def test_each_iteration_and_each_evaluation_stands_once(undisturbed: Run) -> None:
    lines = metrics_of(undisturbed.folder)
    assert [line["iteration"] for line in lines if "lm_loss" in line] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["iteration"] for line in lines if "valid_loss" in line] == [4, 8]
    assert all(set(line) == set(KEYS) for line in lines if "lm_loss" in line)


def test_supervised_tokens_are_those_of_the_global_batch(undisturbed: Run) -> None:
    counted = [line["supervised_tokens"] for line in metrics_of(undisturbed.folder) if "lm_loss" in line]
    assert counted == [sum(1 + row * 7 % 20 for row in range(4 * i, 4 * i + 4)) for i in range(8)]


def test_the_validation_loss_is_a_mean_over_tokens_of_each_row_once(undisturbed: Run) -> None:
    parts = [json.loads(line) for line in (undisturbed.folder / "valid_parts.jsonl").read_text().splitlines()]
    for line in metrics_of(undisturbed.folder):
        if "valid_loss" in line:
            sums, counts = zip(*[part[1:] for part in parts if part[0] == line["iteration"]], strict=True)
            assert sum(counts) == sum(1 + row * 7 % 20 for row in range(6))
            assert line["valid_loss"] == pytest.approx(sum(sums) / sum(counts), rel=1e-6)
            means = [loss / count for loss, count in zip(sums, counts, strict=True) if count]
            assert line["valid_loss"] != pytest.approx(sum(means) / len(means), rel=1e-6)


def test_the_terminal_shows_our_lines_only(undisturbed: Run) -> None:
    foreign = [line for line in undisturbed.ended.stderr.splitlines() if not OURS.match(line)]
    assert foreign == []


def test_tensorboard_holds_the_same_losses(undisturbed: Run) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    board = accumulator(str(undisturbed.folder / "run" / "tensorboard"))
    board.Reload()
    for tag, key in (("lm loss", "lm_loss"), ("lm loss validation", "valid_loss")):
        wanted = {line["iteration"]: line[key] for line in metrics_of(undisturbed.folder) if key in line}
        assert {event.step: event.value for event in board.Scalars(tag)} == wanted


def test_the_run_record_names_the_build_and_the_machine(undisturbed: Run) -> None:
    record = json.loads((undisturbed.folder / "run" / "run.json").read_text())
    owner = json.loads((undisturbed.folder / "run" / "checkpoints" / "sftc.json").read_text())
    (start,) = record["starts"]
    assert record["manifest"] == owner["manifest"]
    assert (start["start"], start["device"], start["ended_at_iteration"]) == ("random", "cpu", 8)
    assert start["packages"]["megatron-core"].startswith("0.19.")
    assert start["arguments"][-2:] == ["--eval-iters", "2"]


def test_a_finished_run_says_so_and_trains_nothing(undisturbed: Run) -> None:
    before = metrics_of(undisturbed.folder)
    ended = train(undisturbed.folder, undisturbed.build)
    assert ended.status == 0
    assert "the training is complete" in ended.stderr
    assert "Megatron 0.19" not in ended.stderr
    assert metrics_of(undisturbed.folder) == before


def test_a_run_killed_before_its_last_evaluation_catches_up(undisturbed: Run, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(undisturbed.folder, folder)
    lines = (folder / "run/metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "run/metrics.jsonl").write_text("".join(lines[:-1]))
    ended = train(folder, undisturbed.build)
    assert ended.status == 0
    assert "iteration 8 has yet to be evaluated" in ended.stderr
    assert what_was_learnt(folder) == what_was_learnt(undisturbed.folder)


def test_another_build_does_not_resume_these_checkpoints(undisturbed: Run) -> None:
    build = write_build(undisturbed.folder / "other", values={"train.lr": 0.001})
    ended = train(undisturbed.folder, build)
    assert ended.status == 1
    assert ended.stderr.startswith("error: `run/checkpoints` holds iteration 8 of another build")
    assert "help: start in a new `logging.run_path`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_killed_and_resumed_run_equals_an_undisturbed_one(undisturbed: Run, tmp_path: Path) -> None:
    build = write_build(tmp_path / "build")
    write_pointer(build, tmp_path / "run")
    launcher = torchrun(tmp_path, build, TINY_STEP_SECONDS="0.25")
    wait_for_iteration(tmp_path, 5, launcher)
    launcher.send_signal(signal.SIGKILL)  # the launcher alone: its rank has to follow by itself
    launcher.wait()
    deadline = time.monotonic() + 60  # a busy machine takes seconds
    while left := processes_in(tmp_path):
        assert time.monotonic() < deadline, f"{left} outlived the launcher"
        time.sleep(0.1)
    assert (tmp_path / "run/checkpoints/latest_checkpointed_iteration.txt").read_text() == "3"

    ended = train(tmp_path, build)
    assert ended.status == 0, ended.stderr
    assert "resuming `run/checkpoints` at iteration 3 of 8, in full" in ended.stderr
    assert what_was_learnt(tmp_path) == what_was_learnt(undisturbed.folder)


def wait_for_iteration(folder: Path, iteration: int, launcher: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 480
    while not any(line["iteration"] >= iteration for line in metrics_of(folder)):
        assert launcher.poll() is None, (folder / "torchrun.err").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_continued_run_may_be_longer_and_slower(sixth: Path, tmp_path: Path) -> None:
    """Another length and another learning rate, with the optimizer: what `checkpoint.finetune: false` is for."""
    values = {"model.load": str(sixth), "checkpoint.finetune": False, "train.train_iters": 12}
    build = write_build(tmp_path / "build", values=values, arguments="--train-iters 12\n--lr 0.001\n")
    write_pointer(build, tmp_path / "run")
    ended = train(tmp_path, build)
    assert ended.status == 0, ended.stderr
    rates = [line["learning_rate"] for line in metrics_of(tmp_path) if "lm_loss" in line]
    # cosine from 0.001 at iteration 0 to 0 at iteration 12, from the seventh on
    assert rates == pytest.approx([0.0005 * (1 + math.cos(math.pi * step / 12)) for step in range(7, 13)])


def seventh_iteration(given: Path, folder: Path, *, ranks: int = 1, layout: str = "") -> tuple[float, ...]:
    """Iteration 7 from the checkpoint of iteration 6: its loss, its gradient, the validation loss after its update.

    Another layout cannot use the random state of the checkpoint, so there is no dropout.
    """
    no_dropout = "--attention-dropout 0\n--hidden-dropout 0\n--eval-interval 7\n--train-iters 7\n"
    values = {
        "model.load": str(given),
        "checkpoint.finetune": False,
        "checkpoint.no_load_optim": True,
        "train.train_iters": 7,
    }
    build = write_build(folder / "build", values=values, arguments=no_dropout + layout)
    write_pointer(build, folder / "run")
    ended = train(folder, build, ranks=ranks)
    assert ended.status == 0, ended.stderr
    assert f"continuing `{given}` at iteration 6, without its optimizer state and place in" in ended.stderr
    line, evaluation = metrics_of(folder)
    assert (line["iteration"], line["supervised_tokens"]) == (7, sum(1 + row * 7 % 20 for row in range(24, 28)))
    return line["lm_loss"], line["grad_norm"], evaluation["valid_loss"]


@pytest.fixture(scope="module")
def sixth(undisturbed: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of iteration 6, in a directory of its own."""
    given = tmp_path_factory.mktemp("sixth") / "checkpoints"
    shutil.copytree(undisturbed.folder / "run" / "checkpoints", given)
    (given / "latest_checkpointed_iteration.txt").write_text("6")
    return given


@pytest.fixture(scope="module")
def on_one_rank(sixth: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, ...]:
    return seventh_iteration(sixth, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize(
    "layout",
    [
        "",
        "--tensor-model-parallel-size 2\n--sequence-parallel\n",
        "--context-parallel-size 2\n",
        "--pipeline-model-parallel-size 2\n",
    ],
    ids=["data", "tensor and sequence", "context", "pipeline"],
)
def test_two_ranks_compute_what_one_computes(
    layout: str, sixth: Path, on_one_rank: tuple[float, ...], tmp_path: Path
) -> None:
    assert seventh_iteration(sixth, tmp_path, ranks=2, layout=layout) == pytest.approx(on_one_rank, rel=1e-4)


def test_an_exception_on_a_rank_ends_the_job_with_its_message(tmp_path: Path) -> None:
    build = write_build(tmp_path / "build")
    write_pointer(build, tmp_path / "run")
    launcher = torchrun(tmp_path, build, TINY_STEP_FAILS_AT="1")
    assert launcher.wait(timeout=120) != 0
    said = (tmp_path / "torchrun.err").read_text()
    assert "error: rank 0 failed: ArithmeticError: planted" in said
    assert 'raise ArithmeticError("planted")' in said.rpartition("Root Cause")[2]


def test_a_gpu_that_is_too_small_is_no_crash(tmp_path: Path) -> None:
    """The error is torch's own, raised by the step: there is no GPU here."""
    build = write_build(tmp_path / "build")
    write_pointer(build, tmp_path / "run")
    ended = train(tmp_path, build, TINY_STEP_FAILS_AT="1", TINY_STEP_ERROR="memory")
    assert ended.status == 1
    lines = [line for line in ended.stderr.splitlines() if line.startswith(("error: ", "help: "))]
    assert lines[0] == "error: rank 0 has not enough memory on its GPU: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert lines[1].startswith("help: recompute more")
    assert "Traceback" not in ended.stderr


def test_arguments_that_megatron_refuses_are_no_crash(tmp_path: Path) -> None:
    build = write_build(tmp_path / "build", arguments="--no-such-option 1\n")
    write_pointer(build, tmp_path / "run")
    ended = train(tmp_path, build)
    assert ended.status == 1
    assert "error: Megatron refuses its arguments: unrecognized arguments: --no-such-option 1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_resume_on_other_rows_is_told(tmp_path: Path) -> None:
    build = write_build(tmp_path / "build", values={"launch.device": "cuda"})
    write_pointer(build, tmp_path / "run")
    save = tmp_path / "run/checkpoints"
    (save / "iter_0000003").mkdir(parents=True)
    (save / "iter_0000003/metadata.json").write_text("{}")
    (save / "latest_checkpointed_iteration.txt").write_text("3")
    for before in ("none", "other"):
        (save / "sftc.json").write_text(json.dumps({"manifest": digest_of(build), "data": before}))
        ended = train(tmp_path, build)
        assert "finds no GPU here" in ended.stderr
        assert ("WARNING: the rows or their preparation have changed: trained on other" in ended.stderr) == (
            before == "other"
        )


def test_preparation_finds_the_edited_file(tmp_path: Path) -> None:
    build = write_build(tmp_path / "build")
    with (build / "forward_step.py").open("a") as file:
        file.write(" ")
    done = subprocess.run(
        [PYTHON, "-m", "sftc.runtime", "prepare", str(build)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: `{build / 'forward_step.py'}` is not what was compiled")
