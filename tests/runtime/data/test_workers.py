"""Worker processes end with what started them, and their death is told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data import workers
from sftc.runtime.data.prepare import prepare
from sftc.runtime.data.settings import DataSettings
from sftc.runtime.errors import UserError

type Settings = Callable[..., DataSettings]

# What a worker needs, so that the child can be told to stop half way.
CHILD = """
import sys, time
from pathlib import Path
from sftc.runtime.data import prepare as module, workers
from sftc.runtime.data.settings import DataSettings
if __name__ == "__main__":
    root = Path(sys.argv[1])
    workers.MANY_BYTES = 1
    def stop(*_):
        print("half way", flush=True)
        time.sleep(60)
    module.prepare(DataSettings(train_data_path=root / "train.jsonl", store_path=root / "store",
        tokenizer_path=root / "tokenizer", seq_length=64, vocab_size=300), lambda done, total, rows: rows and stop())
"""


def children(number: int) -> list[int]:
    found = [
        int(one) for task in Path(f"/proc/{number}/task").iterdir() for one in (task / "children").read_text().split()
    ]
    return [number for number in found if "spawn_main" in Path(f"/proc/{number}/cmdline").read_text()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one core has no workers")
def test_workers_end_with_a_parent_that_is_killed(
    settings: Settings, write_rows: Callable[..., Path], pair: Any, tmp_path: Path
) -> None:
    write_rows("train.jsonl", [pair("a", "b")] * 300)
    chosen = settings()
    (tmp_path / "child.py").write_text(CHILD)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "child.py"), str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"half way\n"
    started = children(parent.pid)
    assert len(started) == min(len(os.sched_getaffinity(0)), workers.MOST_WORKERS)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{number}").exists() for number in started):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)
    assert prepare(chosen).rows("train") == 300


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one core has no workers")
def test_a_worker_that_is_killed_is_told(
    settings: Settings, write_rows: Callable[..., Path], pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows("train.jsonl", [pair("a", "b")] * 3000)
    monkeypatch.setattr(workers, "MANY_BYTES", 1)
    monkeypatch.setattr(workers, "BATCH_BYTES", 1000)

    def kill(_done: int, _total: int, rows: int) -> None:
        for number in children(os.getpid()) if rows else ():
            os.kill(number, signal.SIGKILL)

    chosen = settings()
    with pytest.raises(UserError, match="a worker process that prepares rows was killed; nothing was stored"):
        prepare(chosen, kill)
    assert not [path for path in chosen.store_path.iterdir() if path.suffix != ".lock"]
