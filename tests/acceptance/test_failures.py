"""A job that fails: one message, from the rank that knows, all ranks ended, and the last checkpoint whole."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from sftc.compiler.cli import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from ranks import environment, processes_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]
LIMIT = 480  # seconds; a busy machine takes several times as long as an idle one
SECRET = "planted-5f2c9e"
type Failed = tuple[Path, subprocess.CompletedProcess[str]]
HOOK = """\
import os

calls = []


def loss(losses, loss_mask, batch):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) > 4:
        raise ValueError("planted")
    return (losses * loss_mask).sum(), loss_mask.sum().int()
"""


def build(cwd: Path, root: Path, more: str, **changed: int) -> None:
    """The quickstart with two data-parallel ranks."""
    (cwd / "recipes").symlink_to(root / "recipes")
    text = (root / "recipes/quickstart/recipe.yaml").read_text()
    for key, value in {"nproc_per_node": 2, "micro_batch_size": 16, **changed}.items():
        text, count = re.subn(rf"^  {key}: \d+", f"  {key}: {value}", text, flags=re.MULTILINE)
        assert count == 1
    text = text.replace("lr_warmup_iters: 20", "lr_warmup_iters: 2").replace("eval_interval: 25", "eval_interval: 8")
    text = text.replace("eval_on_start: true", "eval_on_start: false")
    (cwd / "recipe.yaml").write_text(text + more)
    done = CliRunner().invoke(cli, ["compile", str(cwd / "recipe.yaml"), "-o", str(cwd / "build")])
    assert done.exit_code == 0, done.output


def hear_ctrl_c() -> None:
    """Who runs the tests in the background ignores it, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def launch(cwd: Path, **variables: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    with (cwd / "stdout").open("w") as stdout, (cwd / "stderr").open("w") as stderr:
        return subprocess.Popen(
            ["bash", cwd / "build/launch.sh"],
            cwd=cwd,
            env=environment(PATH=path, **variables),
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,  # a group that Ctrl-C can be sent to
            preexec_fn=hear_ctrl_c,
        )


@pytest.fixture(scope="module")
def processes() -> list[str]:
    """What `ps` shows of all processes while the ranks of `failed` train, again and again."""
    return []


@pytest.fixture(scope="module")
def failed(repo_root: Path, tmp_path_factory: pytest.TempPathFactory, processes: list[str]) -> Failed:
    """The second rank fails in iteration 5; checkpoints at 2 and 4. The run is given a secret."""
    cwd = tmp_path_factory.mktemp("failed")
    (cwd / "fails.py").write_text(HOOK)
    more = "  secrets: [PLANTED_KEY]\n\nhooks:\n  loss: ./fails.py:loss\n"
    build(cwd, repo_root, more, save_interval=2, train_iters=8)
    process = launch(cwd, PLANTED_KEY=SECRET)
    deadline = time.monotonic() + LIMIT
    while process.poll() is None:
        assert time.monotonic() < deadline
        processes.append(subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True).stdout)
        time.sleep(0.2)
    text = (cwd / "stderr").read_text()
    return cwd, subprocess.CompletedProcess(process.args, process.returncode, "", text)


def test_the_rank_that_knows_says_it_once(failed: Failed) -> None:
    _, ended = failed
    assert ended.returncode != 0
    told = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert told == ["error: `hooks.loss` (hook_fails.py:loss) raised ValueError: planted (hook_fails.py:9)"]


def test_the_traceback_is_in_its_log(failed: Failed) -> None:
    logs = list((failed[0] / "runs/quickstart/logs").glob("*/attempt_0/1/stdout.log"))
    assert len(logs) == 1
    assert 'raise ValueError("planted")' in logs[0].read_text()


def test_the_last_checkpoint_is_whole(failed: Failed) -> None:
    save = failed[0] / "runs/quickstart/checkpoints"
    assert (save / "latest_checkpointed_iteration.txt").read_text() == "4"
    assert json.loads((save / "iter_0000004/metadata.json").read_text())["sharded_backend"] == "torch_dist"


def test_the_secret_is_seen_nowhere(failed: Failed, processes: list[str]) -> None:
    cwd = failed[0]
    assert any("sftc.runtime train" in shown for shown in processes)
    assert not any(SECRET in shown for shown in processes)
    files = [path for path in cwd.rglob("*") if path.is_file()]
    assert {"launch.sh", "run.json", "stdout.log", "stderr", "owner.json"} - {path.name for path in files} == {
        "owner.json"  # the run has ended
    }
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_torchrun_starts_the_ranks_again_after_one_was_killed(repo_root: Path, tmp_path: Path) -> None:
    build(tmp_path, repo_root, "  max_restarts: 1\n", save_interval=2, train_iters=30)
    process = launch(tmp_path)
    try:
        wait_for_iterations(tmp_path, process)
        os.kill(second_rank(tmp_path), signal.SIGKILL)
        assert process.wait(LIMIT) == 0, (tmp_path / "stderr").read_text()
    finally:
        process.kill()
    text = (tmp_path / "stderr").read_text()
    assert "error: rank 0 failed: another rank has died\n" in text
    assert re.search(r"^resuming `runs/quickstart/checkpoints` at iteration \d+ of 30, in full$", text, re.MULTILINE)
    assert "done: iteration 30, " in text
    starts = json.loads((tmp_path / "runs/quickstart/run.json").read_text())["starts"]
    assert [start.get("outcome") for start in starts] == [None, "complete"]


def test_a_rank_that_hangs_ends_the_run_in_a_stated_time(repo_root: Path, tmp_path: Path) -> None:
    """One minute by the recipe, and then half a minute in which torchrun asks the ranks to leave."""
    build(tmp_path, repo_root, "  distributed_timeout_minutes: 1\n", save_interval=2, train_iters=1000)
    process = launch(tmp_path)
    try:
        wait_for_iterations(tmp_path, process)
        os.kill(second_rank(tmp_path), signal.SIGSTOP)
        stopped = time.monotonic()
        assert process.wait(LIMIT) == 70
    finally:
        process.kill()
    assert 60 <= time.monotonic() - stopped < 180
    told = "error: rank 0 failed: another rank does not answer (`launch.distributed_timeout_minutes`)\n"
    assert told in (tmp_path / "stderr").read_text()
    (start,) = json.loads((tmp_path / "runs/quickstart/run.json").read_text())["starts"]  # the rank that hung keeps it
    assert (start["outcome"], start["why"]) == ("failed", "by its supervisor: the ranks ended with status 70")
    save = tmp_path / "runs/quickstart/checkpoints"
    newest = int((save / "latest_checkpointed_iteration.txt").read_text())
    assert newest >= 4
    assert (save / f"iter_{newest:07d}/metadata.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_preparation_that_is_stopped_leaves_no_process(
    repo_root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGTERM comes to launch.sh alone, as of `kill`; SIGINT to all of the terminal's group, as of Ctrl-C."""
    build(tmp_path, repo_root, "", train_iters=1000)
    rows = (repo_root / "recipes/quickstart/train.jsonl").read_text()
    (tmp_path / "many.jsonl").write_text(rows * 100)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("recipes/quickstart/train.jsonl", "many.jsonl"))
    done = CliRunner().invoke(cli, ["compile", str(recipe), "-o", str(tmp_path / "build")])
    assert done.exit_code == 0, done.output
    process = launch(tmp_path)
    deadline = time.monotonic() + LIMIT
    try:
        while "preparing data" not in (tmp_path / "stderr").read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            time.sleep(0.01)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(LIMIT) in (-number, 128 + number)
        while processes_in(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
    text = (tmp_path / "stderr").read_text()
    assert "Traceback" not in text
    assert ("interrupted before the training; start again to go on\n" in text) == (number == signal.SIGINT)
    assert not (tmp_path / "runs/quickstart/metrics.jsonl").exists()


def wait_for_iterations(cwd: Path, process: subprocess.Popen[str]) -> None:
    """Until there is a checkpoint."""
    metrics = cwd / "runs/quickstart/metrics.jsonl"
    deadline = time.monotonic() + LIMIT
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 4):
        assert time.monotonic() < deadline
        assert process.poll() is None, (cwd / "stderr").read_text()
        time.sleep(0.1)


def second_rank(cwd: Path) -> int:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_rank = b"sftc.runtime\0train\0" in (path / "cmdline").read_bytes()
            if is_rank and (path / "cwd").readlink() == cwd and b"\0RANK=1\0" in (path / "environ").read_bytes():
                return int(path.name)
        except OSError:
            continue
    raise AssertionError("no second rank")
