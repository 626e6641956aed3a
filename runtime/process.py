"""One rank as a Unix process: it dies with its launcher, keeps the terminal clean and says why it failed."""

import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import UserError
from .progress import complain, say
from .record import epoch_seconds

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# The supervisor's folder, its process, and what a rank leaves there: its status, where it stopped, or that the record
# of the run is its.
WATCH, WATCH_PID = "SFTC_WATCH", "SFTC_WATCH_PID"
FAILED, STOPPED, REPORTS = "failed", "stopped", "reports"
# What gloo says of a rank that has died or hangs; NCCL ends the process instead.
LOST = {
    "Connection closed by peer": "another rank has died",
    "Connection reset by peer": "another rank has died",
    "Timed out waiting": "another rank does not answer (`launch.distributed_timeout_minutes`)",
}
REQUEST = "request"  # what the supervisor leaves there: the name of the signal that it passes on as SIGUSR1


class Told(RuntimeError):
    """The run has failed elsewhere; the message says where and why."""


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Get this signal when the parent dies. A SIGKILL of torchrun would leave the ranks training and writing
    checkpoints.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)


def keep_stderr_clean() -> None:
    """Send warnings and log records to stdout, which the launcher keeps in a file; stderr is the user's terminal."""
    # torch's C++ side writes its warnings to the file descriptor, past Python
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    def to_stdout(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        (file or sys.stdout).write(warnings.formatwarning(message, category, filename, lineno, line))

    warnings.showwarning = to_stdout
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")


def share_stderr() -> None:
    """Let whatever this process and its ranks write to stderr follow each other: to a file each would write over the
    other's lines.
    """
    fcntl.fcntl(2, fcntl.F_SETFL, fcntl.fcntl(2, fcntl.F_GETFL) | os.O_APPEND)


def speak_past_torchrun() -> None:
    """Give this rank the supervisor's stderr. It inherits that of torchrun, whose report goes into a file."""
    if (pid := os.environ.get(WATCH_PID)) is None:
        return
    try:
        terminal = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_APPEND)
    except OSError:  # a socket, say; the supervisor then prints what torchrun left
        return
    os.dup2(terminal, 2)
    os.close(terminal)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes started meanwhile hear no request to stop. Slurm sends it to all processes of a step, and what writes
    a checkpoint for a rank has to outlive it. This process hears what came meanwhile at the end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear_nothing() -> None:
    """Ignore requests to stop from here on: Python drops its handlers on the way out, and the next one would kill."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def end_helpers() -> None:
    """Kill the processes that read data or write checkpoints for this rank and are not needed any more.

    Python would ask them by SIGTERM and wait without end: they are deaf to it, or have inherited a handler that
    only takes a note.
    """
    from multiprocessing import active_children

    for child in active_children():
        if child.daemon:
            child.kill()


def requested() -> str | None:
    """The signal that asked the supervisor to stop the run; None if there is no supervisor or none came."""
    try:
        return (Path(os.environ[WATCH]) / REQUEST).read_text(encoding="utf-8")
    except (KeyError, OSError):
        return None


def leave(name: str, text: str) -> None:
    """Tell the supervisor, if there is one. The first rank of this node to do so is believed."""
    if (folder := os.environ.get(WATCH)) is None:
        return
    try:
        with (Path(folder) / name).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if not isinstance(error, FileExistsError):
            print(f"the supervisor cannot be told: {error}", flush=True)


def fail(error: BaseException) -> int:
    """Report what ended this rank and return the exit status: 1 for a user's mistake, 70 for a crash.

    Under torchrun the report goes into its error file, from which torchrun prints the failure that came first;
    every other rank fails in its wake. The traceback of a crash is there and in this rank's log.
    """
    mistake = isinstance(error, UserError)
    leave(FAILED, "1" if mistake else "70")
    text = str(error) if mistake else f"{type(error).__name__}: {error}"
    if not mistake or error.__cause__ is not None:
        traceback.print_exception(error, file=sys.stdout)
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if error_file:
        trace = text if mistake else "".join(traceback.format_exception(error))
        _write_error_file(Path(error_file), text, trace)
    elif not mistake:
        traceback.print_exception(error, file=sys.stderr)
    if _is_to_speak(error_file, mistake):
        if isinstance(error, UserError):
            complain(error)
        else:
            reason = next((reason for mark, reason in LOST.items() if mark in text), text)
            say(f"error: {error}" if isinstance(error, Told) else f"error: rank {_rank()} failed: {reason}")
    return 1 if mistake else 70


def _rank() -> str:
    return os.environ.get("RANK", "0")


def _is_to_speak(error_file: str | None, mistake: bool) -> bool:
    """Whether no other rank of this node has failed yet. The first one knows why; those that follow have lost a peer.

    torchrun keeps the error files of one attempt in a folder for each rank, side by side. Without it, a mistake is
    taken to be one that every rank finds.
    """
    if error_file is None:
        return not mistake or os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        os.close(os.open(Path(error_file).parents[1] / "failed", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def _write_error_file(path: Path, message: str, trace: str) -> None:
    """torch.distributed.elastic's format; its time stamp is what torchrun sorts the failures by."""
    details = {"py_callstack": trace, "timestamp": str(int(epoch_seconds()))}
    path.write_text(json.dumps({"message": {"message": message, "extraInfo": details}}), encoding="utf-8")
