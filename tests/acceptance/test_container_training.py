"""The quickstart in containers that hold nothing but what launch.sh mounts; the engines are those of fake_engine.py."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import fake_engine
import pytest
from container_places import IMAGES, Place, compiled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]


def quickstart(tmp_path: Path, repo_root: Path, engine: str, *stated: str) -> Place:
    """The quickstart in a directory of its own, to be run in a file system that holds its mounts and Python only."""
    if not fake_engine.is_possible():
        pytest.skip("a mount namespace of its own needs root")
    root = tmp_path / "run here"
    shutil.copytree(repo_root / "recipes/quickstart", root / "recipes/quickstart")
    # The packages of the checkout stand for those of the image.
    packages = os.environ.get("PYTHONPATH", "")
    image = [
        f"launch.container.engine={engine}",
        f"launch.container.image={IMAGES[engine]}",
        "launch.device=cpu",
        *([f"launch.environment.PYTHONPATH={packages}"] if packages else []),
    ]
    build = compiled(root / "recipes/quickstart/recipe.yaml", tmp_path / "build", *image, *stated)
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    fake_engine.install(fakes)
    folders = {sys.prefix, sys.base_prefix, str(repo_root), *filter(None, packages.split(":"))}
    variables = {
        **os.environ,
        "PATH": f"{fakes}:{sys.prefix}/bin:/usr/bin:/bin",
        "RECORD": str(tmp_path / "record"),
        "IMAGE": ":".join(sorted(folders)),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return Place(build=build, root=root, variables=variables)


@pytest.mark.parametrize("engine", ["docker", "apptainer"])
def test_the_quickstart_trains_with_nothing_but_its_mounts(tmp_path, repo_root, engine) -> None:
    """Really trains, and in a second start finds its checkpoint; the recipe itself is not there, and is not missed."""
    tracked = "logging.mlflow={experiment: mine, tracking_uri: 'sqlite:///tracked here/mlflow.db'}"
    stated = ("train.train_iters=2", "train.lr_warmup_iters=0", *([tracked] if find_spec("mlflow") else []))
    place = quickstart(tmp_path, repo_root, engine, *stated)
    done = place.launch()
    assert done.returncode == 0, done.stderr
    if find_spec("mlflow"):
        assert "MLflow follows this run" in done.stderr
        assert (place.root / "tracked here/mlflow.db").stat().st_size > 0
        assert len(list(place.root.glob("tracked here/mlruns/*/artifacts/answers.jsonl"))) == 1
    runs = place.root / "runs/quickstart"
    assert (runs / "checkpoints/latest_checkpointed_iteration.txt").read_text() == "2"
    assert [json.loads(line)["iteration"] for line in (runs / "metrics.jsonl").open() if "lm_loss" in line] == [1, 2]
    assert "the training is complete" in place.launch().stderr

    def within(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd="/", env=place.variables, capture_output=True, text=True, timeout=300)

    if engine == "docker":
        record = json.loads((runs / "run.json").read_text())
        record["starts"][-1]["packages"]["torch"] = "0.1"
        (runs / "run.json").write_text(json.dumps(record))
        asked = [sys.executable, "-m", "sftc.compiler", "eval", "runs/quickstart", "--samples=1", "--max-new-tokens=1"]
        done = subprocess.run(asked, cwd=place.root, env=place.variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        line = done.stderr.splitlines()[0]
        assert line.startswith("sftc eval: outside of the run's container (`launch.container`, docker): torch ")
        assert line.endswith(" here, 0.1 there")

    # The same script, asked inside what it would do.
    *container, script = place.recorded()
    shown = within(*container, script, "--dry-run").stdout
    assert shown.splitlines()[0] == "cd -- " + str(place.root).replace(" ", "\\ ")
    assert "torchrun" in shown
    assert within(*container, "-c", "ls recipes/quickstart").stdout.split() == [
        "tokenizer",
        "train.jsonl",
        "valid.jsonl",
    ]
    assert "Read-only file system" in within(*container, "-c", "touch recipes/quickstart/train.jsonl").stderr
    assert within(*container, "-c", "touch runs/quickstart/mine && echo $HOME").returncode == 0


def test_a_run_in_a_container_saves_and_stops_when_it_is_asked_to(tmp_path, repo_root) -> None:
    place = quickstart(tmp_path, repo_root, "docker", "train.train_iters=100000", "checkpoint.save_interval=100000")
    words = ["bash", str(place.build / "launch.sh")]
    run = subprocess.Popen(words, cwd=place.root, env=place.variables, stderr=subprocess.PIPE, text=True)
    metrics = place.root / "runs/quickstart/metrics.jsonl"
    try:
        deadline = time.monotonic() + 300
        while not (metrics.exists() and "lm_loss" in metrics.read_text()) and run.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=300)
    finally:
        run.kill()
    assert run.returncode == 75, said
    assert (place.root / "runs/quickstart/checkpoints/latest_checkpointed_iteration.txt").exists()
