"""Digests of files, each file read once by a process however many of its stages ask."""

import hashlib
from collections.abc import Callable
from pathlib import Path

PIECE = 1 << 20  # bytes

_known: dict[tuple[str, int, int, int], str] = {}


def read_sha256(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """The sha256 of `path` as it is now, in hexadecimal; `advance` hears of the bytes read. OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def known_sha256(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """The same, remembered until the file has another size, time or inode. OSError."""
    before = path.stat()
    key = (str(path.resolve()), before.st_size, before.st_mtime_ns, before.st_ino)
    if key in _known:
        advance(before.st_size)
    else:
        _known[key] = read_sha256(path, advance)
    return _known[key]
