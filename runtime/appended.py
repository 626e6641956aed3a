"""Files of JSON lines that a run adds to: objects with an `iteration`, each whole or not there."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeGuard

from .atomic import replacing

type Line = dict[str, Any]


def appending(path: Path, *, resumed_at: int, unless: Callable[[Line], bool] = lambda _: False) -> TextIO:
    """`path`, open for appending: what is written to it is on disk (in the page cache) when `write` returns.

    Lines past `resumed_at` go: those iterations are trained again. A line that a kill tore goes too, and so do those
    of `resumed_at` that `unless` is true of.
    """

    def stays(text: str) -> bool:
        line = parsed(text)
        if line is None or line["iteration"] > resumed_at:
            return False
        return line["iteration"] < resumed_at or not unless(line)

    path.parent.mkdir(parents=True, exist_ok=True)
    if not all(text.endswith("\n") and stays(text) for text in _texts(path)):
        with replacing(path) as file:
            file.writelines(text.removesuffix("\n") + "\n" for text in _texts(path) if stays(text))
    # Half of a surrogate pair, which UTF-8 has not, comes out as the escape by which JSON writes it.
    return path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)


def lines(path: Path) -> Iterator[Line]:
    """Every whole line, one after the other; none if there is no file. OSError if it cannot be read."""
    return (line for text in _texts(path) if (line := parsed(text)) is not None)


def parsed(text: str) -> Line | None:
    """None if `text` is torn, or no line of such a file."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if is_line(line) else None


def is_line(line: Any) -> TypeGuard[Line]:
    return isinstance(line, dict) and isinstance(line.get("iteration"), int)


def _texts(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            yield from file
