"""The peak of the resident memory of a preparation, all of its processes together."""

import multiprocessing
import os
import threading
from pathlib import Path

from sftc.runtime.data.prepare import prepare
from sftc.runtime.data.settings import DataSettings

SECONDS = 0.1


def peak_of_preparing(settings: DataSettings) -> int:
    """Bytes, looked at ten times a second. Pages that processes share count once in each."""
    process = multiprocessing.get_context("spawn").Process(target=prepare, args=(settings,))
    process.start()
    peak = 0
    done = threading.Event()
    while process.is_alive():
        done.wait(SECONDS)
        peak = max(peak, sum(map(_resident, tree(process.pid or 0))))
    process.join()
    assert process.exitcode == 0, f"preparation ended with {process.exitcode}"
    return peak


def tree(root: int) -> list[int]:
    found = [root]
    for number in found:
        try:
            for task in Path(f"/proc/{number}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _resident(number: int) -> int:
    try:
        return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
