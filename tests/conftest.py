"""Fixtures that every test folder shares."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sftc.compiler.compile import Checked, check_recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """\
name: short
task:
  is_sft: true
model:
  init: random
{model}
tokenizer:
  path: tokenizer
data:
  train_data_path: train.jsonl
train:
  train_iters: 1
  global_batch_size: 8
  seq_length: 1024
  lr: 1e-5
launch:
  nproc_per_node: 8
{more}
"""


type Check = Callable[..., Checked]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected outputs (golden build dirs, error reports)"
    )


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real rows and tokenizers that lie beside some checkouts; tests that want them skip elsewhere."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared (real data and tokenizers), which is not part of the repository")
    return folder


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """`check("preset: llama-2-7b", more="...")`: a recipe with these lines under `model`, and others at its end."""

    def checked(*model: str, more: str = "") -> Checked:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(RECIPE.format(model="\n".join(f"  {line}" for line in model), more=more))
        return check_recipe(recipe, "recipe.yaml")

    return checked
