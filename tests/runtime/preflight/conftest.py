"""Build dirs of the quickstart, and nodes that are processes of this machine."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside the tests
sys.path.insert(0, str(Path(__file__).parents[1]))

from preflight_nodes import Compile, Nodes, new_root

from sftc.compiler.cli import cli


@pytest.fixture
def root(tmp_path: Path, repo_root: Path) -> Path:
    """Where the paths of the quickstart lead somewhere."""
    return new_root(tmp_path / "root", repo_root)


@pytest.fixture
def compiled(tmp_path: Path, repo_root: Path) -> Compile:
    """`compiled("build", launch__nnodes=2)`: a build dir of the quickstart on CPUs with `launch.nnodes` overridden."""

    def compile(name: str = "build", **changes: object) -> Path:
        values = {"launch__device": "cpu", "train__micro_batch_size": 8, "train__global_batch_size": 48}
        values |= changes
        words = [f"--set={key.replace('__', '.')}={json.dumps(value)}" for key, value in values.items()]
        recipe, build = repo_root / "recipes/quickstart/recipe.yaml", tmp_path / name
        done = CliRunner().invoke(cli, ["compile", str(recipe), "-o", str(build), *words])
        assert done.exit_code == 0, done.output
        return build

    return compile


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    started = Nodes()
    try:
        yield started
    finally:
        started.end()
