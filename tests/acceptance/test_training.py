"""Recipes from their text to a trained model, with the commands that a user types: real bash, torchrun and Megatron."""

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

from sftc.runtime.metrics import MACHINE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]
LIMIT = 600


def user_environment() -> dict[str, str]:
    """As after activating the environment of this Python; no GPU, so that every machine does the same."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}


def compile_recipe(recipe: Path, cwd: Path) -> Path:
    build = cwd / "build"
    line = ["sftc", "compile", recipe, "-o", build]
    subprocess.run(line, cwd=cwd, env=user_environment(), check=True, capture_output=True)
    return build


def launch(build: Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    line = ["bash", build / "launch.sh"]
    return subprocess.run(line, cwd=cwd, env=user_environment(), capture_output=True, text=True, timeout=LIMIT)


def metrics(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def learnt(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in MACHINE} for line in metrics(run)]


def short_quickstart(repo_root: Path, tmp_path: Path) -> Path:
    """The quickstart cut to 12 iterations with a checkpoint at 4, 8 and 12."""
    (tmp_path / "recipes").symlink_to(repo_root / "recipes")
    text = (repo_root / "recipes/quickstart/recipe.yaml").read_text()
    for key, value in {"train_iters": 12, "save_interval": 4, "eval_interval": 6, "lr_warmup_iters": 2}.items():
        text, count = re.subn(rf"^  {key}: \d+", f"  {key}: {value}", text, flags=re.MULTILINE)
        assert count == 1
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    return recipe


@pytest.fixture(scope="module")
def trained(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, str]":
    """The directory in which the whole quickstart was trained, and what it said."""
    cwd = tmp_path_factory.mktemp("quickstart")
    (cwd / "recipes").symlink_to(repo_root / "recipes")
    done = launch(compile_recipe(repo_root / "recipes/quickstart/recipe.yaml", cwd), cwd)
    assert done.returncode == 0, done.stderr
    return cwd, done.stderr


def test_the_quickstart_learns_and_says_where_everything_is(trained: "tuple[Path, str]") -> None:
    cwd, stderr = trained
    run = cwd / "runs/quickstart"
    losses = [line["valid_loss"] for line in metrics(run) if "valid_loss" in line]
    assert losses[-1] < losses[0] / 2
    assert losses[-1] < 0.5, "random weights begin at ln 512 = 6.2"
    said = dict(re.findall(r"^  (\w+) +(runs/\S+)$", stderr, re.MULTILINE))
    assert set(said) == {"checkpoint", "metrics", "TensorBoard"}
    for path in said.values():
        assert (cwd / path).exists()
    assert (run / "checkpoints/latest_checkpointed_iteration.txt").read_text() == "300"
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert "Traceback" not in stderr
    assert len(re.findall(r"^preflight: 1 node, 9 checks, all fine \(\d+\.\ds?", stderr, re.MULTILINE)) == 1


def test_its_weights_start_another_run(trained: "tuple[Path, str]", repo_root: Path, tmp_path: Path) -> None:
    """`model.load`: iteration 0, a fresh schedule, and the loss of a model that has learnt already."""
    given = trained[0] / "runs/quickstart/checkpoints"
    recipe = short_quickstart(repo_root, tmp_path)
    recipe.write_text(recipe.read_text().replace("init: random\n", f"load: {given}\n"))
    done = launch(compile_recipe(recipe, tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"starting from the weights in `{given}`, at iteration 0" in done.stderr
    lines = [line for line in metrics(tmp_path / "runs/quickstart") if "lm_loss" in line]
    assert [line["iteration"] for line in lines] == list(range(1, 13))
    assert lines[0]["lm_loss"] < 0.2
    assert lines[0]["learning_rate"] == pytest.approx(1e-3), "half of the peak: the warm-up begins anew"


def interrupt(build: Path, cwd: Path, run: Path, number: signal.Signals) -> "tuple[int, str]":
    """Launch, send the signal to its process group after iteration 6: the status, and what was said."""
    with (cwd / "err").open("w") as stderr:
        line = ["bash", build / "launch.sh"]
        job = subprocess.Popen(line, cwd=cwd, env=user_environment(), stderr=stderr, start_new_session=True)
    deadline = time.monotonic() + LIMIT
    while not any(line["iteration"] >= 6 for line in metrics(run)):
        assert job.poll() is None, (cwd / "err").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(job.pid, number)
    return job.wait(timeout=LIMIT), (cwd / "err").read_text()


def test_an_interrupted_quickstart_goes_on_as_if_nothing_had_happened(repo_root: Path, tmp_path: Path) -> None:
    """Killed between two checkpoints, or asked to stop by a signal; then the same command again."""
    runs = {}
    for name in ("undisturbed", "SIGKILL", "SIGUSR1", "SIGTERM"):
        cwd = tmp_path / name
        cwd.mkdir()
        recipe = short_quickstart(repo_root, cwd)
        recipe.write_text(recipe.read_text().replace("num_workers: 0", "num_workers: 1"))  # it leaves, too
        build = compile_recipe(recipe, cwd)
        runs[name] = cwd / "runs/quickstart"
        if name != "undisturbed":
            status, said = interrupt(build, cwd, runs[name], signal.Signals[name])
            assert len(learnt(runs[name])) < 14
            if name != "SIGKILL":
                assert status == 75, said
                assert f"{name}: saving after this iteration, then leaving (within 300 s)" in said
                saved = int((runs[name] / "checkpoints/latest_checkpointed_iteration.txt").read_text())
                assert f"stopped by {name} at iteration {saved} of 12, saved; start again to go on" in said
                assert max(line["iteration"] for line in metrics(runs[name])) == saved >= 6
                start = json.loads((runs[name] / "run.json").read_text())["starts"][-1]
                assert (start["outcome"], start["why"], start["ended_at_iteration"]) == ("stopped", name, saved)
                assert "Traceback" not in said
        done = launch(build, cwd)
        assert done.returncode == 0, done.stderr
        assert ("resuming" in done.stderr) == (name != "undisturbed")
    assert len(learnt(runs["undisturbed"])) == 12 + 2 * 3  # an evaluation has a loss, and scores
    for name, run in runs.items():
        assert learnt(run) == learnt(runs["undisturbed"]), name


def test_real_rows_through_a_real_tokenizer(repo_root: Path, tmp_path: Path, shared: Path) -> None:
    """GSM8K and SmolLM2 as the recipe's header asks for them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/gsm8k").symlink_to(shared / "data/gsm8k")
    (tmp_path / "data/smollm2").symlink_to(shared / "tokenizers/smollm2")
    build = compile_recipe(repo_root / "recipes/gsm8k-smollm2-cpu.yaml", tmp_path)
    done = launch(build, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "7,466 training and 1,316 validation samples" in done.stderr
    assert "train: 7 of 7,473 rows are left out: overlong 7" in done.stderr
    lines = metrics(tmp_path / "runs/gsm8k-smollm2-cpu")
    losses = [line["lm_loss"] for line in lines if "lm_loss" in line]
    assert len(losses) == 8
    # ln 49152 = 10.80 is what random weights know.
    assert losses[0] == pytest.approx(10.8, abs=0.1)
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("train.jsonl", "absent.jsonl"), "absent.jsonl"),
        (("quickstart/tokenizer", "quickstart/absent"), "recipes/quickstart/absent"),
        (("init: random", "load: absent/checkpoint"), "`model.load: absent/checkpoint` holds no Megatron checkpoint"),
        (("vocab_size: 512", "vocab_size: 500"), "500"),
        (("seq_length: 96", "seq_length: 64"), "overlong"),
    ],
    ids=["rows", "tokenizer", "checkpoint", "vocabulary", "length"],
)
def test_what_is_missing_is_told_before_the_ranks_start(
    repo_root: Path, tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    recipe = short_quickstart(repo_root, tmp_path)
    recipe.write_text(recipe.read_text().replace(*change))
    done = launch(compile_recipe(recipe, tmp_path), tmp_path)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs/quickstart/logs").exists()


def test_a_malformed_row_is_told_by_file_and_line_and_nothing_is_stored(repo_root: Path, tmp_path: Path) -> None:
    recipe = short_quickstart(repo_root, tmp_path)
    rows = (repo_root / "recipes/quickstart/train.jsonl").read_text().splitlines()
    rows[4] = '{"messages": [{"role": "user", "content": '
    rows[9] = '{"conversations": []}'
    (tmp_path / "bad.jsonl").write_text("\n".join(rows) + "\n")
    recipe.write_text(recipe.read_text().replace("recipes/quickstart/train.jsonl", "bad.jsonl"))
    done = launch(compile_recipe(recipe, tmp_path), tmp_path)
    assert done.returncode == 1
    assert "bad.jsonl:5: " in done.stderr
    assert "bad.jsonl:10: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs/quickstart/data.json").exists()
    assert not [path for path in (tmp_path / ".sftc/store").glob("*") if path.is_dir() and path.name[0] != "."]
