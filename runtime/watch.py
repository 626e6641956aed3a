"""The supervisor of torchrun: passes a request to stop on to the ranks, bounds its time, and returns a true status.

launch.sh becomes this process. torchrun would end its ranks 30 seconds after a signal, and always ends with 1.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from . import process
from .bundle import read_bundle
from .checkpoint.owner import Hold
from .progress import say
from .record import Stopwatch, end_unsaid

STOPPED = 75  # EX_TEMPFAIL: saved and not complete
TIMED_OUT = 124  # as of timeout(1)
INTERVAL = 0.5  # seconds between two looks
# Seconds in which one request may arrive twice: Slurm signals every process of a step, and a container's engine passes
# on what it has received itself.
ECHO = 1.0
REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# How torchrun reports the exit status of the rank that failed first, below that headline.
ROOT_CAUSE = re.compile(r"Root Cause.*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


def run(build_dir: Path, command: Sequence[str]) -> int:
    """Start `command` and return when it has ended: 0 complete, 75 stopped and saved, 124 not saved within
    `launch.stop_seconds`, 128 + N ended by a second signal N or a rank killed by it, else the status of the rank that
    failed first. UserError for a foreign build dir, or if another run trains into `checkpoint.save`.
    """
    process.share_stderr()
    bundle = read_bundle(build_dir)
    save = bundle.value("checkpoint.save")
    hold = Hold(Path(save), bundle.name, say) if save else None
    if hold is not None:
        hold.take()
    try:
        with tempfile.TemporaryDirectory(prefix="sftc-") as folder:
            watch = _Watch(Path(folder), int(bundle.value("launch.stop_seconds")), hold)
            status = watch.run(command)
            if status not in (0, STOPPED) and (Path(folder) / process.REPORTS).exists():
                _record(Path(bundle.value("logging.run_path")), watch.why or f"the ranks ended with status {status}")
            return status
    finally:
        if hold is not None:
            hold.release()


class _Watch:
    def __init__(self, folder: Path, limit: int, hold: Hold | None) -> None:
        self._folder = folder
        self._limit = limit
        self._hold = hold
        self._request: signal.Signals | None = None
        self._again: signal.Signals | None = None  # the second one
        self._clock, self._since = Stopwatch(), 0.0  # the first one
        self.why: str | None = None  # the run has failed, as far as it is known here

    def run(self, command: Sequence[str]) -> int:
        before = {number: signal.signal(number, self._note) for number in REQUESTS}
        report = self._folder / "torchrun"
        try:
            with report.open("w", encoding="utf-8") as file:
                child = subprocess.Popen(
                    command,
                    stderr=file,
                    start_new_session=True,  # what the terminal sends to its group comes here only
                    preexec_fn=_prepare,
                    env={**os.environ, process.WATCH: str(self._folder), process.WATCH_PID: str(os.getpid())},
                )
            try:
                killed = self._wait(child)
            finally:
                _end(child)
            return self._status(child.returncode, killed, report.read_text(encoding="utf-8", errors="replace"))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        lap = self._clock.lap()
        if self._request is None:
            self._request = signal.Signals(number)
            return
        self._since += lap
        if number != signal.SIGUSR1 and (number != self._request or self._since > ECHO):
            self._again = signal.Signals(number)

    def _wait(self, child: subprocess.Popen[bytes]) -> int | None:
        """None once the child has ended, or the status with which it is to be killed."""
        clock, passed, is_told = Stopwatch(), 0.0, False
        while True:
            try:
                child.wait(timeout=INTERVAL)
                return None
            except subprocess.TimeoutExpired:
                lap = clock.lap()
            if self._hold is not None and (other := self._hold.keep()) is not None:
                self._complain(f"{other} has taken `checkpoint.save` over: ended at once, nothing is saved")
                return 1
            if self._again is not None:
                self.why = f"a second signal, {self._again.name}: ended at once, nothing is saved"
                say(self.why)
                return 128 + self._again
            if self._request is None:
                continue
            if not is_told:
                is_told, lap = True, 0.0
                (self._folder / process.REQUEST).write_text(self._request.name, encoding="utf-8")
                say(f"{self._request.name}: saving after this iteration, then leaving (within {self._limit} s)")
            passed += lap
            if passed > self._limit:
                self._complain(f"not saved within {self._limit} s after {self._request.name} (`launch.stop_seconds`)")
                return TIMED_OUT
            # Again and again: a rank that has just been started does not listen yet, and ignores it.
            for pid in _children(child.pid):
                _kill(pid, signal.SIGUSR1)

    def _complain(self, why: str) -> None:
        self.why = why
        say(f"error: {why}")

    def _status(self, returned: int, killed: int | None, report: str) -> int:
        if killed is not None:
            return killed
        if returned == 0:
            stopped = _text(self._folder / process.STOPPED)
            if stopped is None:
                return 0
            why = f" by {self._request.name}" if self._request else ""
            say(f"stopped{why} at iteration {stopped}; start again to go on")
            return STOPPED
        found = ROOT_CAUSE.search(report)
        status = int(found[1]) if found else returned
        # A rank that is killed leaves nothing, and the others fail in its wake. torchrun itself sends SIGTERM.
        if status < 0 and status != -signal.SIGTERM:
            self._complain(f"a rank was killed by {signal.Signals(-status).name}")
            return 128 - status
        if (failed := _text(self._folder / process.FAILED)) is not None:
            return int(failed)
        sys.stderr.write(report)
        return 128 - status if status < 0 else status


def _record(run_path: Path, why: str) -> None:
    """Where the rank that keeps the record was killed, the supervisor is the last one to know anything."""
    try:
        end_unsaid(run_path, f"by its supervisor: {why}")
    except OSError as error:
        say(f"WARNING: the end of this start is not in `{run_path}`: {error}")


def _prepare() -> None:
    """In the child. What ignores a signal still does so after exec: torchrun, and each rank until it listens."""
    process.die_with_parent()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _end(child: subprocess.Popen[bytes]) -> None:
    """The ranks are killed when torchrun is: see process.die_with_parent."""
    if child.poll() is None:
        for pid in _children(child.pid):
            _kill(pid, signal.SIGKILL)
        child.kill()
        child.wait()


def _children(parent: int) -> Iterator[int]:
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        yield from map(int, (_text(path) or "").split())


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
