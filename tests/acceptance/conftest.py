"""Runs sftc as a user types it, in a process of its own."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside the tests

from browser import driver

type RunLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_line(tmp_path: Path) -> RunLine:
    """`run_line("sftc compile r.yaml -o out")` in an empty directory; keywords are environment variables."""

    def run(line: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(line)
        if words[0] == "sftc":
            words[:1] = [sys.executable, "-m", "sftc.compiler"]
        env = {**os.environ, "PYTHONSAFEPATH": "1", **variables}
        return subprocess.run(words, cwd=cwd or tmp_path, env=env, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def recipe(tmp_path: Path, repo_root: Path) -> Path:
    """A copy of the quickstart recipe that a test may change."""
    copy = tmp_path / "recipe.yaml"
    copy.write_text((repo_root / "recipes/quickstart/recipe.yaml").read_text())
    return copy


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where chromedriver listens."""
    with driver() as found:
        yield found


@pytest.fixture
def artifacts(repo_root: Path) -> Path:
    """Where screenshots are kept: $SFTC_ARTIFACTS, or build/artefacts of the checkout, which git ignores."""
    folder = Path(os.environ.get("SFTC_ARTIFACTS", repo_root / "build/artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
