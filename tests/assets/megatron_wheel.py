"""Wheels in a folder of their own, beside the environment that everything else comes from.

With the folder first on PYTHONPATH a Megatron in it is found before an installed one; torch and the others stay the
ones of the environment.
"""

import os
import subprocess
import sys
from pathlib import Path


class WheelError(Exception):
    """pip could not install it; the message is the last line that pip wrote."""


def install(requirement: str, folder: Path) -> None:
    """Put the wheel of megatron-core `requirement` (`0.17.1`, `0.17.*`) into `folder`, without what it needs."""
    install_wheels(folder, f"megatron-core=={requirement}")


def install_wheels(folder: Path, *requirements: str) -> None:
    """The wheels of `requirements` alone. WheelError where pip cannot get them."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries=1"]
    wheel = ["--no-deps", "--target", str(folder), *requirements]
    done = subprocess.run([*pip, "install", *wheel], capture_output=True, text=True)
    if done.returncode:
        raise WheelError((done.stderr.strip() or "pip failed").splitlines()[-1])


def seeing(folder: Path) -> dict[str, str]:
    """The environment variables of a process that is to find the wheel in `folder`."""
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
