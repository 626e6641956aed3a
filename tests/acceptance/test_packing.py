"""Packed runs with the commands that a user types: they resume exactly, and every layout computes the same loss."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.metrics import MACHINE

np = pytest.importorskip("numpy")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]
# `num_workers` is the last line of the section `data` of the quickstart.
PACKED = {
    "num_workers": "0\n  packing: true",
    "micro_batch_size": 1,
    "global_batch_size": 10,
    "seq_length": 192,
    "max_position_embeddings": 192,
}


def write_recipe(root: Path, cwd: Path, **changes: Any) -> Path:
    """The quickstart in `cwd`, with other values for keys, or with more sections at its end."""
    (cwd / "recipes").symlink_to(root / "recipes")
    text = (root / "recipes/quickstart/recipe.yaml").read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"^  {key}: \S+", f"  {key}: {value}", text, flags=re.MULTILINE)
        if not count:
            text += f"{key}: {value}\n"
    path = cwd / "recipe.yaml"
    path.write_text(text)
    return path


def launch(recipe: Path) -> str:
    """Compile and launch `recipe` in its directory, without a GPU; what was said."""
    cwd = recipe.parent
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    for line in (["sftc", "compile", recipe, "-o", cwd / "build"], ["bash", cwd / "build/launch.sh"]):
        done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def learnt(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MACHINE} for line in lines]


def prepared(cwd: Path) -> dict[str, Any]:
    pointer = json.loads((cwd / "runs/quickstart/data.json").read_text())
    summary: dict[str, Any] = json.loads((cwd / pointer["store"] / "data.json").read_text())
    return summary["splits"]


@pytest.fixture(scope="module")
def undisturbed(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory with twelve iterations over packs, checkpoints at 4, 8 and 12, and what was said."""
    cwd = tmp_path_factory.mktemp("packed")
    short = {"train_iters": 12, "save_interval": 4, "eval_interval": 6, "lr_warmup_iters": 2}
    return cwd, launch(write_recipe(repo_root, cwd, **PACKED, **short))


def test_every_conversation_of_the_packs_is_asked(undisturbed: tuple[Path, str]) -> None:
    """In the training, and of a checkpoint: of the run's own rows and of others, which are packed as well."""
    cwd, _ = undisturbed
    asked = [json.loads(line) for line in (cwd / "runs/quickstart/answers.jsonl").read_text().splitlines()]
    last = [one for one in asked if one["iteration"] == 12]
    assert len(last) == prepared(cwd)["valid"]["kept"] == 80
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    for more, folder in (("", "iteration-12"), ("--data recipes/quickstart/valid.jsonl", "iteration-12-valid")):
        line = ["sftc", "eval", "runs/quickstart", *more.split()]
        done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("iteration 12, 80 conversations of ")
        found = (cwd / "runs/quickstart/eval" / folder / "answers.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in found] == last


def test_how_full_the_packs_are_is_said(undisturbed: tuple[Path, str]) -> None:
    cwd, said = undisturbed
    for split, numbers in prepared(cwd).items():
        packing = numbers["packing"]
        assert packing["packs"] < numbers["kept"] / 2
        assert packing["use"] > 0.95
        packs = f"{packing['packs']:,} packs of 192 positions, {packing['use']:.2%} in use"
        assert f"{split}: {numbers['kept']:,} rows in {packs}" in said
    assert f"each evaluation sees all {prepared(cwd)['valid']['packing']['packs']} validation samples" in said


def test_supervised_tokens_are_those_of_the_rows(undisturbed: tuple[Path, str]) -> None:
    from sftc.runtime.data.indexed import IndexedReader

    cwd, _ = undisturbed
    store = cwd / json.loads((cwd / "runs/quickstart/data.json").read_text())["store"]
    masks, packs = IndexedReader(store / "train.mask"), IndexedReader(store / "train.packs")
    order = np.random.Generator(np.random.PCG64([1234, 0])).permutation(len(packs))
    wanted = [
        sum(int(masks[row][1:].sum()) for pack in order[10 * step : 10 * step + 10] for row in packs[pack])
        for step in range(12)
    ]
    counted = [line["supervised_tokens"] for line in learnt(cwd / "runs/quickstart") if "lm_loss" in line]
    assert counted == wanted


def test_a_packed_run_resumes_exactly(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    """As if killed between iterations 4 and 8."""
    cwd = tmp_path / "killed"
    shutil.copytree(undisturbed[0], cwd, symlinks=True)
    checkpoints = cwd / "runs/quickstart/checkpoints"
    for late in ("iter_0000008", "iter_0000012"):
        shutil.rmtree(checkpoints / late)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("4")
    assert "at iteration 4 of 12, in full" in launch(cwd / "recipe.yaml")
    assert len(learnt(cwd / "runs/quickstart")) == 12 + 2 * 3
    assert learnt(cwd / "runs/quickstart") == learnt(undisturbed[0] / "runs/quickstart")


@pytest.mark.parametrize(
    "changes",
    [
        {"global_batch_size": 32},
        {**PACKED, "nproc_per_node": 2, "parallel": "{pipeline_model_parallel_size: 2}"},
        {**PACKED, "nproc_per_node": 2, "parallel": "{tensor_model_parallel_size: 2, sequence_parallel: true}"},
        {**PACKED, "nproc_per_node": 2, "parallel": "{context_parallel_size: 2}"},
    ],
    ids=["not packed", "pipeline", "tensor and sequence", "context"],
)
def test_every_layout_has_the_same_loss(
    undisturbed: tuple[Path, str], changes: dict[str, Any], repo_root: Path, tmp_path: Path
) -> None:
    """The validation loss of the weights that were learnt from packs, after a step that is too small to change them."""
    given = undisturbed[0] / "runs/quickstart/checkpoints"
    still = {"train_iters": 1, "lr": "1.0e-30", "lr_warmup_iters": 0, "save_interval": 1, "eval_interval": 1}
    recipe = write_recipe(repo_root, tmp_path, **still, **changes)
    recipe.write_text(recipe.read_text().replace("init: random\n", f"load: {given}\n"))
    launch(recipe)
    *_, loss, scores = learnt(undisturbed[0] / "runs/quickstart")
    *_, here, there = learnt(tmp_path / "runs/quickstart")
    assert here["valid_loss"] == pytest.approx(loss["valid_loss"], rel=1e-5)
    del scores["iteration"], there["iteration"]
    assert there == pytest.approx(scores, rel=1e-5)
