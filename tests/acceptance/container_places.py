"""Build dirs whose recipes ask for a container, and the places in which they are launched."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

import fake_engine
from fake_engine import Request

from sftc.compiler.compile import artifacts, check_recipe

DIGEST = hashlib.sha256(b"image").hexdigest()
NAME = f"registry.example.com:5000/team/sftc@sha256:{DIGEST}"
IMAGES = {"docker": NAME, "podman": NAME, "apptainer": f"docker://{NAME}", "singularity": f"docker://{NAME}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A build dir of a hostile recipe, and a directory to start in, in a place with a hostile name."""

    build: Path
    root: Path
    variables: dict[str, str]

    def launch(self, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
        words = ["bash", str(self.build / "launch.sh"), *options]
        return subprocess.run(
            words, cwd=self.root, env=self.variables | more, capture_output=True, text=True, timeout=600
        )

    def recorded(self) -> list[str]:
        path = Path(self.variables["RECORD"])
        return path.read_text().split("\0")[:-1] if path.exists() else []

    def environment(self) -> dict[str, str]:
        text = Path(self.variables["RECORD"] + ".environment").read_text()
        return dict(one.split("=", 1) for one in text.split("\0")[:-1])

    def request(self) -> Request:
        return fake_engine.read(self.recorded()[2:])


def compiled(recipe: Path, build: Path, *stated: str) -> Path:
    checked = check_recipe(recipe, "r.yaml", stated)
    assert checked.plan is not None, checked.diagnostics
    build.mkdir(parents=True)
    for artifact in artifacts(checked):
        (build / artifact.path).write_bytes(artifact.content)
    return build
