"""Runs sftc as a user types it, in a process of its own."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
