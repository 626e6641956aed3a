"""What `make` does before there is an environment."""

import os
import stat
import subprocess
from pathlib import Path

import pytest


def find(folder: Path, repo_root: Path) -> "subprocess.CompletedProcess[str]":
    """Look for a Python where only `folder` and the basic tools are on PATH."""
    env = {"PATH": f"{folder}:/no-such-folder", "HOME": str(folder)}
    script = repo_root / "tests/assets/find_python.sh"
    return subprocess.run(["/bin/bash", script], env=env, capture_output=True, text=True)


def fake(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(stat.S_IRWXU)
    return path


def test_a_machine_without_a_suitable_python_gets_one_sentence(tmp_path: Path, repo_root: Path) -> None:
    fake(tmp_path, "python3", "exit 1")  # an old one: it fails the question for its version
    fake(tmp_path, "python3.12", "echo 'no such version' >&2; exit 127")  # a shim that answers for none
    done = find(tmp_path, repo_root)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "Python 3.12 or newer" in done.stderr


@pytest.mark.parametrize("name", ["python3.12", "python3.13", "python3", "python"])
def test_any_suitable_python_is_found(tmp_path: Path, repo_root: Path, name: str) -> None:
    path = fake(tmp_path, name, "exit 0")
    assert find(tmp_path, repo_root).stdout == f"{path}\n"


def test_one_named_by_the_user_comes_first(tmp_path: Path, repo_root: Path) -> None:
    fake(tmp_path, "python3.12", "exit 0")
    mine = fake(tmp_path, "mine", "exit 0")
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHON": str(mine)}
    script = repo_root / "tests/assets/find_python.sh"
    assert subprocess.run(["/bin/bash", script], env=env, capture_output=True, text=True).stdout == f"{mine}\n"


def test_continuous_integration_runs_the_command_of_the_readme(repo_root: Path) -> None:
    lines = (repo_root / ".ci/run").read_text().splitlines()
    assert lines[-2:] == ["make check", "make test"]
    assert os.access(repo_root / ".ci/run", os.X_OK)
