"""Checkpoints that are torn, and a disk that is full: the one before is loaded, and the run is the undisturbed one."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build_dir import write_build, write_pointer
from disks import small_disk_at
from ranks import Run, torchrun, train

from sftc.runtime.checkpoint.keep import prune
from sftc.runtime.checkpoint.tracker import TRACKER, find_checkpoint
from sftc.runtime.metrics import MACHINE, read


def learnt(folder: Path) -> list[dict[str, Any]]:
    lines = read(folder / "run/metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in MACHINE} for line in lines]


def stop(launcher: int, number: signal.Signals = signal.SIGSTOP) -> None:
    """Signal the rank that torchrun has started, and see that it has stopped where it is to."""
    (rank,) = (
        int(pid) for path in Path(f"/proc/{launcher}/task").glob("*/children") for pid in path.read_text().split()
    )
    os.kill(rank, number)
    while number == signal.SIGSTOP and Path(f"/proc/{rank}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)


@pytest.mark.slow
def test_a_checkpoint_that_a_kill_tore_is_never_loaded(undisturbed: Run, tmp_path: Path) -> None:
    build = write_build(tmp_path / "build", arguments="--save-interval 1\n")
    write_pointer(build, tmp_path / "run")
    save = tmp_path / "run/checkpoints"
    launcher = torchrun(tmp_path, build)
    torn = None
    deadline = time.monotonic() + 240
    while torn is None:
        assert launcher.poll() is None, (tmp_path / "torchrun.err").read_text()
        assert time.monotonic() < deadline
        # While the shards of one of them are written: the tracker names an earlier one then.
        late = [path for path in save.glob("iter_*") if path.name > "iter_0000001"]
        torn = next((path for path in late if any(path.iterdir()) and not (path / "metadata.json").exists()), None)
        if torn is not None:
            stop(launcher.pid)
            if (torn / "metadata.json").exists():  # too late for this one
                torn = None
                stop(launcher.pid, signal.SIGCONT)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    time.sleep(1)  # its rank dies by itself
    assert not (torn / "metadata.json").exists(), "killed too late to tear it"
    whole = find_checkpoint(save)
    assert whole is not None
    assert whole.iteration == int(torn.name[5:]) - 1

    ended = train(tmp_path, build)
    assert ended.status == 0, ended.stderr
    assert f"resuming `run/checkpoints` at iteration {whole.iteration} of 8, in full" in ended.stderr
    assert learnt(tmp_path) == learnt(undisturbed.folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a size that `resize` sets, where checkpoints go."""
    with small_disk_at(tmp_path / "run/checkpoints", "1m") as place:
        yield place


def resize(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_checkpoint_before_is_whole(
    undisturbed: Run, small_disk: Path, tmp_path: Path
) -> None:
    build = write_build(tmp_path / "build")
    write_pointer(build, tmp_path / "run")
    one = sum(path.stat().st_size for path in (undisturbed.folder / "run/checkpoints/iter_0000003").iterdir())
    resize(small_disk, int(1.5 * one))
    ended = train(tmp_path, build)
    assert ended.status == 1
    told, help_line = [line for line in ended.stderr.splitlines() if line.startswith(("error: ", "help: "))]
    assert told.startswith(
        "error: the checkpoint of iteration 6 cannot be written to `run/checkpoints`: the disk is full"
    )
    assert help_line == "help: the one before it is whole: mend this, and launch again to go on from there"
    assert (small_disk / TRACKER).read_text() == "3"

    resize(small_disk, 8 * one)
    again = train(tmp_path, build)
    assert again.status == 0, again.stderr
    assert "at iteration 3 of 8, in full" in again.stderr
    assert learnt(tmp_path) == learnt(undisturbed.folder)


def checkpoints(root: Path, *iterations: int, torn: tuple[int, ...] = (), newest: int) -> None:
    for iteration in iterations:
        folder = root / f"iter_{iteration:07d}"
        folder.mkdir(parents=True)
        (folder / "__0_0.distcp").write_text("weights")
        if iteration not in torn:
            (folder / "metadata.json").write_text("{}")
    (root / TRACKER).write_text(str(newest))


def left(root: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in root.glob("iter_*"))


@pytest.mark.parametrize(
    ("iterations", "torn", "newest", "keep", "stay"),
    [
        ((10, 20, 30), (), 30, 2, [20, 30]),
        ((10, 20, 30), (), 30, 3, [10, 20, 30]),
        ((10, 20, 30), (), 30, 9, [10, 20, 30]),
        ((10, 20, 30, 40), (40,), 30, 1, [30, 40]),  # 40 is being written
        ((10, 20, 30, 40), (20,), 40, 2, [30, 40]),
        ((10, 20, 30, 40), (20,), 40, 3, [10, 20, 30, 40]),  # torn ones do not count
        ((10, 20, 30, 40), (), 20, 1, [20, 30, 40]),  # what the tracker does not name yet
    ],
)
def test_the_newest_complete_ones_stay(
    tmp_path: Path, iterations: tuple[int, ...], torn: tuple[int, ...], newest: int, keep: int, stay: list[int]
) -> None:
    checkpoints(tmp_path, *iterations, torn=torn, newest=newest)
    (tmp_path / "sftc.json").write_text("{}")
    gone = prune(tmp_path, keep)
    assert left(tmp_path) == stay
    assert gone == sorted(set(iterations) - set(stay))
    assert json.loads((tmp_path / "sftc.json").read_text()) == {}


def test_nothing_is_removed_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert prune(tmp_path, 1) == []
