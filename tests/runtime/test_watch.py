"""The supervisor with small programs in torchrun's place: signals, time limits, statuses, whose directory it is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from build_dir import write_build
from ranks import processes_in

from sftc.runtime.checkpoint import owner
from sftc.runtime.checkpoint.owner import FILE, Hold, read_owner, require_free
from sftc.runtime.errors import UserError

LIMIT = 120  # seconds for what takes two
SAVE = Path("run/checkpoints")
# In torchrun's place: a launcher with one rank, which notes that it was asked and may then leave.
RANK = """\
import os, signal, sys, time
from pathlib import Path

def asked(number, frame):
    with open("heard", "a") as file:
        file.write("asked\\n")
    if len(sys.argv) > 1:
        Path(os.environ["SFTC_WATCH"], "stopped").write_text(sys.argv[1])
        os._exit(0)

signal.signal(signal.SIGUSR1, asked)
Path("ready").touch()
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    write_build(tmp_path / "build", values={"launch.stop_seconds": 3})
    (tmp_path / "rank.py").write_text(RANK)
    return tmp_path


type Watch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def watch(cwd: Path) -> Iterator[Watch]:
    started = []

    def start(*command: str, **variables: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "sftc.runtime", "watch", "build", "--", *command]
        started.append(
            subprocess.Popen(words, cwd=cwd, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def rank(*stopped: str) -> tuple[str, ...]:
    return ("bash", "-c", '"$@" & wait $!', "launcher", sys.executable, "rank.py", *stopped)


def until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_lets_the_rank_save_and_leave(cwd: Path, watch: Watch, number: signal.Signals) -> None:
    process = watch(*rank("3 of 8, saved"))
    until((cwd / "ready").exists)
    process.send_signal(number)
    assert process.communicate(timeout=LIMIT)[1].splitlines() == [
        f"{number.name}: saving after this iteration, then leaving (within 3 s)",
        f"stopped by {number.name} at iteration 3 of 8, saved; start again to go on",
    ]
    assert process.returncode == 75


def test_what_is_not_saved_in_time_is_killed_and_said(cwd: Path, watch: Watch) -> None:
    process = watch(*rank())
    until((cwd / "ready").exists)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=LIMIT)[1].splitlines()
    assert told[1:] == ["error: not saved within 3 s after SIGTERM (`launch.stop_seconds`)"]
    assert process.returncode == 124
    assert len((cwd / "heard").read_text().splitlines()) > 1  # it was asked again and again
    until(lambda: not processes_in(cwd))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_run_at_once(cwd: Path, watch: Watch, number: signal.Signals) -> None:
    process = watch(*rank())
    until((cwd / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    until((cwd / "heard").exists)
    process.send_signal(number)
    assert f"a second signal, {number.name}: ended at once" in process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 128 + number
    until(lambda: not processes_in(cwd))


def test_an_echo_of_the_first_signal_is_no_second_one(cwd: Path, watch: Watch) -> None:
    """Under Slurm, a container's engine passes on what the supervisor in it has received, too."""
    process = watch(*rank())
    until((cwd / "ready").exists)
    process.send_signal(signal.SIGTERM)
    until((cwd / "heard").exists)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert "a second signal, SIGTERM" in process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 128 + signal.SIGTERM


def test_a_second_usr1_is_the_first_one_again(cwd: Path, watch: Watch) -> None:
    """Slurm may send it to the step and to the script."""
    process = watch(*rank())
    until((cwd / "ready").exists)
    process.send_signal(signal.SIGUSR1)
    until((cwd / "heard").exists)
    process.send_signal(signal.SIGUSR1)
    assert "second signal" not in process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 124


# Keeps the record as the last rank does, and is killed.
REPORTS = """\
import os
from pathlib import Path
from sftc.runtime import process
from sftc.runtime.record import RunRecord

record = RunRecord(Path("run"), name="tiny", manifest="0" * 64)
record.started(start="random", iteration=0)
process.leave(process.REPORTS, "")
os.kill(os.getpid(), 9)
"""


def test_the_end_of_a_killed_rank_is_in_the_record(cwd: Path, watch: Watch) -> None:
    (cwd / "reports.py").write_text(REPORTS)
    process = watch(sys.executable, "reports.py")
    assert "error: a rank was killed by SIGKILL\n" in process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 128 + signal.SIGKILL
    record = json.loads((cwd / "run/run.json").read_text())
    (start,) = record["starts"]
    assert (start["outcome"], start["why"]) == ("failed", "by its supervisor: a rank was killed by SIGKILL")
    # An earlier start that never said how it ended is not this supervisor's.
    for key in ("ended", "outcome", "why"):
        del start[key]
    (cwd / "run/run.json").write_text(json.dumps(record))
    assert watch("bash", "-c", "kill -9 $$").wait(LIMIT) == 128 + signal.SIGKILL
    assert json.loads((cwd / "run/run.json").read_text()) == record


def test_the_directory_of_a_living_run_is_refused_by_name(cwd: Path, watch: Watch) -> None:
    first = watch("sleep", "600")
    until((cwd / SAVE / FILE).exists)
    second = watch("touch", "started")
    error, help_line = second.communicate(timeout=LIMIT)[1].splitlines()
    assert second.returncode == 1
    assert error.startswith("error: `run/checkpoints` is in use: ")
    assert f"process {first.pid}, since 20" in error
    assert f"`kill {first.pid}` there" in help_line
    assert not (cwd / "started").exists()
    with pytest.raises(UserError, match=f"process {first.pid}"):
        require_free(cwd / SAVE, "tiny")
    first.terminate()
    assert first.wait(LIMIT) == 124  # `sleep` saves nothing
    assert not (cwd / SAVE / FILE).exists()
    assert watch("touch", "started").wait(LIMIT) == 0
    assert (cwd / "started").exists()


def test_a_killed_run_leaves_its_directory_to_the_next_one(cwd: Path, watch: Watch) -> None:
    first = watch("sleep", "600")
    until((cwd / SAVE / FILE).exists)
    first.kill()  # not waited for: it stays as a zombie
    until(lambda: "Z" in Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2])
    second = watch("true")
    (told,) = second.communicate(timeout=LIMIT)[1].splitlines()
    assert second.returncode == 0
    assert told.startswith("`run/checkpoints` was left by ")
    assert f"process {first.pid}, " in told
    assert told.endswith("which is gone: this run takes it over")


def test_a_run_whose_directory_is_taken_ends(cwd: Path, watch: Watch) -> None:
    process = watch("sleep", "600")
    until((cwd / SAVE / FILE).exists)
    changed(cwd / SAVE, token="another", job="another", user="bob", host="node9", pid=7)
    error = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 1
    assert error.startswith("error: bob on node9, process 7, ")
    assert "has taken `checkpoint.save` over" in error
    assert json.loads((cwd / SAVE / FILE).read_text())["user"] == "bob"


def changed(save: Path, **facts: Any) -> None:
    """The lock with other facts, as of a supervisor that runs elsewhere."""
    path = save / FILE
    content = json.loads(path.read_text()) | {"machine": "elsewhere"} | facts
    scratch = path.with_suffix(".other")
    scratch.write_text(json.dumps(content))
    scratch.replace(path)


def hold(save: Path, said: list[str] | None = None) -> Hold:
    return Hold(save, "run", [].append if said is None else said.append, patience=1.0)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory that somebody on another machine holds."""
    hold(tmp_path).take()
    changed(tmp_path, user="bob", host="node9")
    return tmp_path


def test_a_silent_owner_of_another_machine_is_watched_and_then_replaced(elsewhere: Path) -> None:
    said: list[str] = []
    mine = hold(elsewhere, said)
    mine.take()
    assert [line.split(": ")[1] for line in said] == ["watching for 1 s if it lives", "this run takes it over"]
    assert all("bob on node9" in line for line in said)
    mine.release()
    assert list(elsewhere.iterdir()) == []


def test_an_owner_of_another_machine_that_gives_a_sign_is_left_alone(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = owner.pause

    def beating(seconds: float) -> None:
        pause(seconds)
        os.utime(elsewhere / FILE)

    monkeypatch.setattr(owner, "pause", beating)
    with pytest.raises(UserError, match="bob on node9"):
        hold(elsewhere).take()
    assert read_owner(elsewhere).owner.user == "bob"


def test_a_torn_lock_is_replaced_after_the_same_time(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"token": "a')
    said: list[str] = []
    hold(tmp_path, said).take()
    assert "somebody whose name cannot be read" in said[0]
    assert read_owner(tmp_path).owner.pid == os.getpid()


def test_slurm_has_ended_what_it_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    hold(tmp_path).take()
    changed(tmp_path)
    with pytest.raises(UserError, match="Slurm job 12"):
        require_free(tmp_path, "run")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    require_free(tmp_path, "run")
    said: list[str] = []
    hold(tmp_path, said).take()
    assert [line.split(": ")[1] for line in said] == ["this run takes it over"]  # without watching first


def test_the_nodes_of_a_run_hold_its_directory_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second node holds it on when the first one has gone silent."""
    monkeypatch.setattr(owner, "BEAT", 0.01)
    monkeypatch.setenv("MASTER_ADDR", "node1")
    first, second = hold(tmp_path), hold(tmp_path)
    first.take()
    changed(tmp_path)
    token = read_owner(tmp_path).owner.token
    require_free(tmp_path, "run")
    second.take()
    beat = read_owner(tmp_path).beat
    until(lambda: first.keep() or read_owner(tmp_path).beat > beat)
    assert (second.keep(), read_owner(tmp_path).owner.token) == (None, token)
    until(lambda: second.keep() or read_owner(tmp_path).owner.token != token)
    assert first.keep() is None
    first.release()
    assert (tmp_path / FILE).exists()
    second.release()
    assert not (tmp_path / FILE).exists()


def test_a_lock_that_somebody_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.01)
    mine = hold(tmp_path)
    mine.take()
    (tmp_path / FILE).unlink()
    until(lambda: mine.keep() or (tmp_path / FILE).exists())


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/save/owner.json` cannot be written: Not a directory"):
        hold(tmp_path / "file/save").take()
