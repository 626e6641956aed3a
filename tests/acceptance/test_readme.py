"""What the README shows is what happens."""

import re
from pathlib import Path

import pytest

from sftc.compiler.compile import check_recipe

README = Path(__file__).resolve().parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_its_make_targets_exist(repo_root: Path) -> None:
    targets = {
        line.partition(" ")[2] for block in blocks("bash") for line in block.splitlines() if line.startswith("make")
    }
    assert {"demo", "test"} <= targets
    makefile = (repo_root / "Makefile").read_text()
    for target in targets:
        assert f"\n{target}:" in makefile


def test_its_two_commands_compile_and_would_launch(run_line, repo_root: Path, tmp_path: Path) -> None:
    (lines,) = [block.splitlines() for block in blocks("bash") if block.startswith("sftc compile")]
    (tmp_path / "recipes").symlink_to(repo_root / "recipes")
    assert run_line(lines[0]).returncode == 0
    dry = run_line(f"{lines[1]} --dry-run")
    assert dry.returncode == 0
    assert "torchrun --nnodes=1 --nproc-per-node=1" in dry.stdout


def test_its_ways_to_look_at_data_work(run_line, repo_root: Path, tmp_path: Path) -> None:
    (lines,) = [block.splitlines() for block in blocks("bash") if block.startswith("sftc data")]
    (tmp_path / "recipes").symlink_to(repo_root / "recipes")
    for line in lines:
        done = run_line(line)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "preview.html").is_file()


def test_its_recipe_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    assert check_recipe(recipe, "recipe.yaml").diagnostics == []


def test_its_error_report_is_what_sftc_prints(run_line, recipe: Path) -> None:
    (text,) = blocks("text")
    recipe.write_text(recipe.read_text().replace("  lr: ", "  finetune_lr: "))
    assert run_line("sftc validate recipe.yaml").stdout == text


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README.read_text()))
def test_its_links_lead_somewhere(repo_root: Path, link: str) -> None:
    assert (repo_root / link.partition("#")[0]).exists()
