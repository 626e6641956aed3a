"""A file system of a given size, for tests that fill it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_at(place: Path, size: str) -> Iterator[Path]:
    """A tmpfs at `place`, which is made; size as mount(8) takes it, such as `8m`. Skips the test where it may not."""
    place.mkdir(parents=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]).returncode:
        pytest.skip("needs to mount a file system, which this user may not")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
