"""Restarts in the same processes: real ranks, Megatron's own support, NVIDIA's extension from PyPI."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sftc.compiler.cli import cli
from sftc.runtime.metrics import MACHINE

sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1] / "assets")]

from megatron_wheel import WheelError, install_wheels, seeing  # noqa: E402
from ranks import environment, processes_in  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]
LIMIT = 480  # seconds; a busy machine takes several times as long as an idle one
RELEASE = "0.4.1"  # the newest one on PyPI for a year
# FAILS: `RANK:CALL` of this module's function, in each of which the backward pass of that rank fails; PLANTED: by what.
# A rank writes its process and how many models it holds.
HOOK = """\
import gc
import os

from megatron.core.models.gpt import GPTModel

calls = []


def loss(losses, loss_mask, batch):
    calls.append(1)
    models = sum(type(found) is GPTModel for found in gc.get_objects())
    print(f"seen {os.environ['RANK']}: process {os.getpid()}, models {models}", flush=True)
    if f"{os.environ['RANK']}:{len(calls)}" in os.environ.get("FAILS", "").split():
        if os.environ["PLANTED"] == "mistake":
            raise ValueError("a planted mistake")
        losses.register_hook(fail)
    return (losses * loss_mask).sum(), loss_mask.sum().int()


def fail(_):
    raise RuntimeError("planted")
"""
METRICS = "runs/quickstart/metrics.jsonl"
SEEN = re.compile(r"^seen (\d): process (\d+), models (\d+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes that find NVIDIA's extension."""
    folder = tmp_path_factory.mktemp("extension")
    needed = [] if find_spec("psutil") else ["psutil"]
    try:
        install_wheels(folder, f"nvidia-resiliency-ext=={RELEASE}", *needed)
    except WheelError as error:
        pytest.skip(f"nvidia-resiliency-ext {RELEASE} could not be installed: {error}")
    return {"PYTHONPATH": seeing(folder)["PYTHONPATH"]}


def build(cwd: Path, root: Path, train_iters: int) -> None:
    """The quickstart with two data-parallel ranks, a checkpoint after each other iteration."""
    (cwd / "recipes").symlink_to(root / "recipes")
    (cwd / "planted.py").write_text(HOOK)
    text = (root / "recipes/quickstart/recipe.yaml").read_text()
    changes = {"nproc_per_node": 2, "micro_batch_size": 16, "save_interval": 2, "train_iters": train_iters}
    for key, value in {**changes, "lr_warmup_iters": 2, "eval_interval": 8}.items():
        text, count = re.subn(rf"^  {key}: \d+", f"  {key}: {value}", text, flags=re.MULTILINE)
        assert count == 1
    text = text.replace("eval_on_start: true", "eval_on_start: false")
    more = "  max_inprocess_restarts: 2\n  distributed_timeout_minutes: 2\n\nhooks:\n  loss: ./planted.py:loss\n"
    (cwd / "recipe.yaml").write_text(text + more)
    done = CliRunner().invoke(cli, ["compile", str(cwd / "recipe.yaml"), "-o", str(cwd / "build")])
    assert done.exit_code == 0, done.output


def launch(cwd: Path, variables: dict[str, str], **planted: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    with (cwd / "stdout").open("w") as stdout, (cwd / "stderr").open("w") as stderr:
        return subprocess.Popen(
            ["bash", cwd / "build/launch.sh"],
            cwd=cwd,
            env=environment(PATH=path, **variables, **planted),
            stdout=stdout,
            stderr=stderr,
            text=True,
        )


def trained(cwd: Path, root: Path, variables: dict[str, str], **planted: str) -> tuple[int, str]:
    """The status and what the terminal shows."""
    build(cwd, root, train_iters=12)
    process = launch(cwd, variables, **planted)
    try:
        status = process.wait(LIMIT)
    finally:
        process.kill()
    return status, (cwd / "stderr").read_text()


def metrics(cwd: Path) -> list[dict[str, Any]]:
    lines = (cwd / METRICS).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in MACHINE} for line in lines]


def starts(cwd: Path) -> list[dict[str, Any]]:
    return list(json.loads((cwd / "runs/quickstart/run.json").read_text())["starts"])


def seen(cwd: Path) -> list[tuple[str, ...]]:
    """Rank, process and number of models at each call of the loss."""
    logs = (cwd / "runs/quickstart/logs").glob("*/attempt_*/*/stdout.log")
    return [found for log in logs for found in SEEN.findall(log.read_text())]


@pytest.fixture(scope="module")
def undisturbed(repo_root: Path, extension: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("undisturbed")
    status, text = trained(cwd, repo_root, extension)
    assert status == 0, text
    return cwd


@pytest.fixture(scope="module")
def disturbed(repo_root: Path, extension: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The second rank fails in its iteration 6, and the first one in the attempt that follows."""
    cwd = tmp_path_factory.mktemp("disturbed")
    status, text = trained(cwd, repo_root, extension, FAILS="1:6 0:9", PLANTED="failure")
    assert status == 0, text
    return cwd, text


def test_the_ranks_begin_again_and_say_why(disturbed: tuple[Path, str]) -> None:
    cwd, text = disturbed
    for number, rank in enumerate((1, 0), start=1):
        assert f"rank {rank} failed: RuntimeError: planted: restarting in the same processes, {number} of 2\n" in text
    assert "Traceback" not in text
    assert "error: " not in text
    assert [start["outcome"] for start in starts(cwd)] == ["failed", "failed", "complete"]
    assert [start["start"] for start in starts(cwd)] == ["random", "resume", "resume"]


def test_in_the_processes_that_they_have_and_with_one_model(disturbed: tuple[Path, str]) -> None:
    found = seen(disturbed[0])
    assert len({(rank, pid) for rank, pid, _ in found}) == 2
    assert {models for _, _, models in found} == {"1"}


def test_what_is_learnt_is_what_an_undisturbed_run_learns(disturbed: tuple[Path, str], undisturbed: Path) -> None:
    assert metrics(disturbed[0]) == metrics(undisturbed)
    assert all(json.loads(line).get("memory_bytes", 1) for line in (undisturbed / METRICS).read_text().splitlines())
    assert [line["iteration"] for line in metrics(undisturbed) if "lm_loss" in line] == list(range(1, 13))


def test_the_traceback_is_in_the_log_of_the_rank_that_failed(disturbed: tuple[Path, str]) -> None:
    (log,) = (disturbed[0] / "runs/quickstart/logs").glob("*/attempt_0/1/stdout.log")
    assert 'raise RuntimeError("planted")' in log.read_text()


def test_more_failures_than_allowed_end_the_run(repo_root: Path, extension: dict[str, str], tmp_path: Path) -> None:
    """What is said is why the last one failed, on another rank than those before."""
    status, text = trained(tmp_path, repo_root, extension, FAILS="1:2 1:3 0:4", PLANTED="failure")
    assert status == 70
    told = [line for line in text.splitlines() if line.startswith("error: ")]
    assert told == ["error: rank 0 failed: RuntimeError: planted"]
    assert [start["outcome"] for start in starts(tmp_path)] == ["failed"] * 3
    assert processes_in(tmp_path) == []


def test_a_mistake_ends_the_run_at_once(repo_root: Path, extension: dict[str, str], tmp_path: Path) -> None:
    status, text = trained(tmp_path, repo_root, extension, FAILS="0:4", PLANTED="mistake")
    assert status == 1
    (told,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert told.startswith("error: `hooks.loss` (hook_planted.py:loss) raised ValueError: a planted mistake")
    assert [start["outcome"] for start in starts(tmp_path)] == ["failed"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_others(
    repo_root: Path, extension: dict[str, str], tmp_path: Path, rank: int
) -> None:
    """The first one is where they would meet again."""
    build(tmp_path, repo_root, train_iters=1000)
    process = launch(tmp_path, extension)
    try:
        wait_for_a_checkpoint(tmp_path, process)
        os.kill(process_of(tmp_path, rank), signal.SIGKILL)
        killed = time.monotonic()
        assert process.wait(LIMIT) in (128 + signal.SIGKILL, 70)
    finally:
        process.kill()
    assert time.monotonic() - killed < 60
    text = (tmp_path / "stderr").read_text()
    assert "error: another rank has died\n" in text
    assert "Traceback" not in text
    while processes_in(tmp_path):  # those that watched a rank end by themselves
        assert time.monotonic() - killed < LIMIT
        time.sleep(0.1)


def wait_for_a_checkpoint(cwd: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT
    while not (cwd / "runs/quickstart/checkpoints/latest_checkpointed_iteration.txt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, (cwd / "stderr").read_text()
        time.sleep(0.1)


def process_of(cwd: Path, rank: int) -> int:
    """Of the processes of this rank the one that torchrun has started: the others were forked by it."""
    found = {int(pid) for known, pid, _ in seen(cwd) if known == str(rank)}
    assert len(found) == 1
    return found.pop()
