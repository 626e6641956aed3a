"""JSON pointers (RFC 6901), the names by which stages speak about values of a recipe.

The root is `""`; `/train/lr` is what a person writes as `train.lr`.
"""

from collections.abc import Iterable


def join(pointer: str, part: str | int) -> str:
    return f"{pointer}/{str(part).replace('~', '~0').replace('/', '~1')}"


def pointer_to(parts: Iterable[str | int]) -> str:
    pointer = ""
    for part in parts:
        pointer = join(pointer, part)
    return pointer


def split(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def dotted(pointer: str) -> str:
    """The spelling for messages: `/data/sources/0/path` is `data.sources[0].path`; the root is empty."""
    text = ""
    for part in split(pointer):
        text += f"[{part}]" if part.isdecimal() else f".{part}" if text else part
    return text
