"""Nodes of a preflight that are processes of this machine, and what they said."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ranks import environment, free_port

NODE = Path(__file__).with_name("preflight_node.py")
LIMIT = 240  # seconds; none of them comes near it unless something hangs
type Compile = Callable[..., Path]


def new_root(folder: Path, repo_root: Path) -> Path:
    """A directory in which the paths of the quickstart lead somewhere."""
    folder.mkdir()
    (folder / "recipes").symlink_to(repo_root / "recipes")
    return folder


class Nodes:
    """Nodes that meet on a free port of the loopback device."""

    def __init__(self) -> None:
        self.port = free_port()
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, build: Path, root: Path, number: int | None = None, /, *, stated: str = "", **planted: Any
    ) -> subprocess.Popen[str]:
        """A node in `root` with what is planted; without a number it knows none. stated: NAME=VALUE words."""
        own = {} if number is None else {"NODE_RANK": str(number)}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port), "SFTC_PREFLIGHT_WAIT": "120", **own}
        meeting |= dict(word.split("=", 1) for word in stated.split())
        unset = ("SLURM", "NODE_RANK", "MASTER_", "SFTC_")
        clean = {name: value for name, value in environment().items() if not name.startswith(unset)}
        process = subprocess.Popen(
            [sys.executable, NODE, json.dumps(planted), build],
            cwd=root,
            env={**clean, **meeting},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Status, stdout and stderr."""
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def found(document: str, check: str) -> dict[int, list[tuple[str, str]]]:
    """Result and words of a check by node, from what `--json` prints."""
    return {
        node["node"]: [(one["status"], one["text"]) for one in node["checks"] if one["check"] == check]
        for node in json.loads(document)["nodes"]
    }


def left(root: Path) -> list[Path]:
    """Markers that were forgotten."""
    return list(root.rglob(".sftc-preflight*"))
