"""Prepared data on disk: a directory per content, complete or absent.

`STORE/KEY` appears in one rename, when all its files are written and synced; KEY is a digest of everything that decides
what is in it. Until then they lie in `STORE/KEY.partial`, which belongs to the holder of the lock on `STORE/KEY.lock`;
the kernel drops that lock when its process dies, and the next holder starts anew.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Raise it when the same inputs would be prepared differently.
STORE_VERSION = 2
SUMMARY = "data.json"


def content_key(identity: Mapping[str, Any]) -> str:
    """32 hexadecimal digits that stand for `identity`, which is JSON data."""
    text = json.dumps({"store_version": STORE_VERSION, **identity}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def read_summary(directory: Path) -> dict[str, Any] | None:
    """`data.json` of a prepared directory, or None if it is not whole: every file is there and has its size."""
    try:
        summary: dict[str, Any] = json.loads((directory / SUMMARY).read_bytes())
        sizes = summary["files"].items()
        whole = all((directory / name).stat().st_size == size for name, size in sizes)
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return summary if whole else None


@contextmanager
def locked(store: Path, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `key`; `on_wait` is called once if another process has it."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / f"{key}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def new_directory(store: Path, key: str) -> Iterator[Path]:
    """An empty directory that becomes `store/key` on leaving without error, and is gone otherwise. Needs the lock."""
    partial, final = store / f"{key}.partial", store / key
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        sync(partial)
        # A network file system may show late what another node has made, which its ranks may be reading by now.
        if read_summary(final) is None:
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            sync(store)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_summary(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write `data.json`, with the sizes of all files that are in `directory` now."""
    files = {file.name: file.stat().st_size for file in sorted(directory.iterdir())}
    write_json(directory / SUMMARY, {**summary, "files": files})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` at once; a reader sees the old content or the new."""
    # nodes that share the file system may run containers, whose process ids are alike
    new = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    with new.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
