"""Whole build dirs, byte for byte: of every shipped recipe, and of cases that reach every branch of the templates."""

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from sftc.compiler.compile import artifacts, check_recipe

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = Path(__file__).parent / "expected"
RECIPES = [*sorted(ROOT.glob("recipes/**/*.yaml")), *sorted(ROOT.glob("tests/golden/cases/*.yaml"))]


def golden_of(recipe: Path) -> Path:
    name = recipe.parent.name if recipe.name == "recipe.yaml" else recipe.stem
    return EXPECTED / name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: golden_of(recipe).name)
def test_build_dir_is_the_golden_one(recipe: Path, request: pytest.FixtureRequest) -> None:
    checked = check_recipe(recipe, recipe.name)
    assert checked.plan is not None, checked.diagnostics
    made = {artifact.path: artifact for artifact in artifacts(checked)}
    modes = {path: oct(artifact.mode) for path, artifact in made.items()}
    golden = golden_of(recipe)
    if request.config.getoption("--update-golden"):
        golden.mkdir(parents=True, exist_ok=True)
        for stale in golden.iterdir():
            stale.unlink()
        for path, artifact in made.items():
            (golden / path).write_bytes(artifact.content)
        (golden / "MODES.json").write_text(json.dumps(modes, indent=2) + "\n")
    assert sorted(path.name for path in golden.iterdir()) == sorted([*made, "MODES.json"])
    for path, artifact in made.items():
        assert artifact.content.decode() == (golden / path).read_text(encoding="utf-8"), path
    assert modes == json.loads((golden / "MODES.json").read_text())


def test_every_golden_belongs_to_a_recipe() -> None:
    assert {path.name for path in EXPECTED.iterdir()} == {golden_of(recipe).name for recipe in RECIPES}


@pytest.mark.parametrize(
    "script", sorted(EXPECTED.glob("*/launch.s*")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_scripts_are_sound_bash(script: Path) -> None:
    parsed = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (parsed.returncode, parsed.stderr) == (0, "")
    lines = [line for line in script.read_text().splitlines() if not line.startswith("#SBATCH ")]
    # What is mounted and what the engine is told comes on top.
    assert len(lines) <= 78 + 65 * ("SFTC_IN_CONTAINER" in script.read_text())
    assert "eval" not in script.read_text().split()


DIGEST = "sha256:" + "0123456789abcdef" * 4
CONTAINERS = {
    "none": (),
    "docker": ("launch.container.engine=docker", f"launch.container.image=example.com/sftc@{DIGEST}"),
    "podman": ("launch.container.engine=podman", f"launch.container.image=example.com/sftc@{DIGEST}"),
    "apptainer": ("launch.container.engine=apptainer", f"launch.container.image=docker://example.com/sftc@{DIGEST}"),
    "singularity": (
        *("launch.container.engine=singularity", "launch.container.image=images/sftc.sif"),
        f"launch.container.image_sha256={DIGEST.removeprefix('sha256:')}",
    ),
    "pyxis": ("launch.container.engine=pyxis", f"launch.container.image=example.com/sftc@{DIGEST}"),
}
SHIPPED = sorted(ROOT.glob("recipes/**/*.yaml"))


def shellchecked(scripts: list[Path]) -> str:
    """What shellcheck says about all of them, in one call."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    return subprocess.run(["shellcheck", "--severity=warning", *scripts], capture_output=True, text=True).stdout


def test_shellcheck_finds_nothing_in_the_golden_scripts() -> None:
    assert shellchecked(sorted(EXPECTED.glob("*/launch.s*"))) == ""


@pytest.mark.parametrize("engine", CONTAINERS)
def test_shellcheck_finds_nothing_in_any_recipe_launcher_and_container(engine: str, tmp_path: Path) -> None:
    scripts = []
    for number, (recipe, launcher) in enumerate(product(SHIPPED, ["torchrun", "slurm"])):
        text = recipe.read_text(encoding="utf-8")
        if launcher == "torchrun" and (engine == "pyxis" or "  slurm:" in text):
            continue
        device = ["launch.device=cpu"] if "device: auto" in text else []
        stated = (*CONTAINERS[engine], f"launch.launcher={launcher}", *device)
        checked = check_recipe(recipe, recipe.name, stated)
        assert checked.plan is not None, checked.diagnostics
        for artifact in artifacts(checked):
            if artifact.path.startswith("launch."):
                scripts.append(tmp_path / f"{number}-{artifact.path}")
                scripts[-1].write_bytes(artifact.content)
    assert len(scripts) >= 2 * len(SHIPPED)
    assert shellchecked(scripts) == ""


@pytest.mark.parametrize("module", sorted(EXPECTED.glob("*/forward_step.py")), ids=lambda path: path.parent.name)
def test_the_forward_step_is_sound_python(module: Path) -> None:
    """Read, compiled and linted as if a person had written it."""
    compile(module.read_text(), str(module), "exec")
    ruff = [sys.executable, "-m", "ruff"]
    style = ["--isolated", "--line-length", "130"]
    linted = subprocess.run([*ruff, "check", *style, "--select", "E,F,W", module], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    formatted = subprocess.run([*ruff, "format", *style, "--diff", module], capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stdout
