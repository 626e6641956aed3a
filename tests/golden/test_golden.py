"""Whole build dirs, byte for byte: of every shipped recipe, and of cases that reach every branch of the templates."""

import json
import subprocess
import sys
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
    assert len(lines) <= 72 + 65 * ("SFTC_IN_CONTAINER" in script.read_text())
    assert "eval" not in script.read_text().split()


@pytest.mark.parametrize(
    "script", sorted(EXPECTED.glob("*/launch.s*")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_shellcheck_finds_nothing(script: Path) -> None:
    try:
        found = subprocess.run(["shellcheck", "--severity=warning", script], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    assert found.stdout == ""


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
