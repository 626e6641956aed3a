"""One recipe for every Megatron that it can target: what is compiled is accepted, and what is trained is the same.

The wheel of a line that is not installed is put into a folder of its own, which the recipe names in `megatron.path`.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.compile import artifacts, check_recipe
from sftc.compiler.targets import targets
from sftc.runtime.metrics import MACHINE

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/assets"))

from megatron_wheel import WheelError, install, seeing  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]
*OLDER, NEWEST = targets()
SHORT = {"train_iters": 2, "lr_warmup_iters": 1, "eval_interval": 2, "save_interval": 2, "device": "cpu"}


def release_of(target: str) -> str:
    """The release that the option table of `target` was read off."""
    table = json.loads((ROOT / f"schema/megatron/{target}.json").read_text(encoding="utf-8"))
    return str(table["megatron_core"])


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder with the wheel of each target that is not installed."""
    installed = importlib.metadata.version("megatron-core")
    folders = {}
    for target in targets():
        if not installed.startswith(f"{target}."):
            folders[target] = tmp_path_factory.mktemp(f"megatron-{target}-")
            try:
                install(release_of(target), folders[target])
            except WheelError as error:
                pytest.skip(f"megatron-core {release_of(target)} could not be installed: {error}")
    return folders


def retarget(recipe: str, target: str, path: Path | None) -> str:
    """The text of a recipe without `megatron.args`, which may be of one target alone."""
    recipe = re.sub(r"^megatron:\n(  .*\n|\n)*", "", recipe, flags=re.MULTILINE)
    return f'{recipe}\nmegatron:\n  target: "{target}"\n' + (f"  path: {path}\n" if path else "")


def user_environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def compile_recipe(recipe: Path, build: Path) -> None:
    line = [sys.executable, "-m", "sftc.compiler", "compile", recipe, "-o", build]
    done = subprocess.run(line, env=user_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


type Trained = tuple[list[dict[str, Any]], list[str]]


def trained(cwd: Path, target: str, path: Path | None, *, fused: bool = False) -> Trained:
    """The metrics of two iterations of the quickstart and the evaluations around them, and what the model answered.
    `fused`: the losses are computed without logits, which is what we change in the model itself.
    """
    (cwd / "recipes").symlink_to(ROOT / "recipes")
    text = (ROOT / "recipes/quickstart/recipe.yaml").read_text(encoding="utf-8")
    for key, value in SHORT.items():
        text, count = re.subn(rf"^  {key}: \w+", f"  {key}: {value}", text, flags=re.MULTILINE)
        assert count == 1
    text = text.replace("\ntrain:\n", f"\ntrain:\n  fused_linear_cross_entropy: {str(fused).lower()}\n")
    (cwd / "recipe.yaml").write_text(retarget(text, target, path), encoding="utf-8")
    compile_recipe(cwd / "recipe.yaml", cwd / "build")
    line = ["bash", cwd / "build/launch.sh"]
    done = subprocess.run(line, cwd=cwd, env=user_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"Megatron {target}." in done.stderr
    lines, answers = (
        (cwd / f"runs/quickstart/{name}.jsonl").read_text().splitlines() for name in ("metrics", "answers")
    )
    return [{k: v for k, v in json.loads(text).items() if k not in MACHINE} for text in lines], answers


@pytest.fixture(scope="module")
def newest(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("newest"), NEWEST, wheels.get(NEWEST))


@pytest.mark.parametrize("target", OLDER)
def test_the_quickstart_is_trained_alike(target: str, wheels: dict[str, Path], newest: Trained, tmp_path: Path) -> None:
    """The same weights to begin with, the same rows in the same order, the same loss, gradient and update; and the same
    answers before and after.
    """
    lines, answers = trained(tmp_path, target, wheels.get(target), fused=True)
    assert json.loads((tmp_path / "build/plan.json").read_text())["values"]["train"]["fused_linear_cross_entropy"][
        "value"
    ]
    assert [line["iteration"] for line in newest[0]] == [0, 0, 1, 2, 2, 2]
    for line, wanted in zip(lines, newest[0], strict=True):
        assert line == pytest.approx(wanted, rel=1e-5)
    assert len(answers) == 160
    assert answers == newest[1]


@pytest.mark.parametrize("target", OLDER)
def test_megatron_accepts_every_recipe(target: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    """Those that the compiler does not refuse for this target: tests/unit/test_megatron.py says which it does."""
    files = []
    for recipe in [*(ROOT / "recipes").glob("**/*.yaml"), *(ROOT / "tests/golden/cases").glob("*.yaml")]:
        checked = check_recipe(recipe, recipe.name, (f'megatron.target="{target}"',), locked=False)
        if checked.plan is None:
            assert {item.code for item in checked.diagnostics} <= {"SFTC501", "SFTC503"}, recipe
            continue
        folder = tmp_path / f"{recipe.parent.name}-{recipe.stem}"
        folder.mkdir()
        content = {artifact.path: artifact.content for artifact in artifacts(checked)}
        for name in content.keys() & {"megatron.args", "megatron.cpu.args"}:
            (folder / name).write_bytes(content[name])
        files.append(f"{folder / 'megatron.args'}:{checked.plan['launch.world_size']}")
    assert len(files) > 15
    line = [sys.executable, ROOT / "tests/runtime/accept_arguments.py", *files]
    done = subprocess.run(line, env=seeing(wheels[target]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert {name: answer for name, answer in answers.items() if not answer["accepted"]} == {}
