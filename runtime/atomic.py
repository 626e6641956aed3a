"""Files that change at once: a kill or a full disk leaves the old content, never half of the new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` on leaving without an error. OSError as usual."""
    scratch = path.with_name(path.name + ".tmp")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            yield file
        os.replace(scratch, path)  # noqa: PTH105 - the atomic call by its name
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
