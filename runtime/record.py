"""Facts of this run that no build dir may hold: when, where, on what, how fast. The only module with a clock."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .atomic import replacing

FILE = "run.json"
BUILD = "build"  # a copy of the reviewed files, beside it
ORIGINS = "origins.json"
OUTCOMES = ("complete", "stopped", "failed")
SLURM = {"slurm_job_id": "SLURM_JOB_ID", "slurm_restart_count": "SLURM_RESTART_COUNT"}
PACKAGES = ("sftc", "megatron-core", "torch", "transformer-engine", "numpy", "tokenizers", "tensorboard")


def epoch_seconds() -> float:
    return time.time()


def now() -> str:
    """Such as `2026-01-31T12:00:00+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def pause(seconds: float) -> None:
    time.sleep(seconds)


def slurm_job() -> str | None:
    """The number of this Slurm job, which the parts of a heterogeneous one share."""
    return os.environ.get("SLURM_JOB_ID_HET_GROUP_0") or os.environ.get("SLURM_JOB_ID")


def run_id(name: str) -> str:
    """Under what the nodes of a run meet, as launch.sh tells torchrun: a start of a job never meets another one."""
    job = slurm_job()
    return f"{name}-{job}-{os.environ.get('SLURM_RESTART_COUNT', '0')}" if job else name


def host_name() -> str:
    return socket.gethostname()


def packages() -> dict[str, str]:
    """The versions of those of PACKAGES that are installed. Imports none of them."""
    return {name: found for name in PACKAGES if (found := _version(name))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process. `born` tells it from a later one of its number, `machine` one space of such numbers from others."""

    pid: int
    born: str | None
    machine: str | None

    @property
    def lives_here(self) -> bool | None:
        """Whether it lives; None if that cannot be seen from here."""
        if self.machine is None or self.machine != _number_space():
            return None
        return self.born is not None and _born(self.pid) == self.born


def this_process() -> Process:
    return Process(pid=os.getpid(), born=_born(os.getpid()), machine=_number_space())


def _number_space() -> str | None:
    """The boot and the name space in which process numbers mean something (proc(5), namespaces(7)); None elsewhere."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _born(pid: int) -> str | None:
    """When a process was started, in clock ticks since the boot: field 22 of proc(5)'s stat. None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


class Stopwatch:
    """Time spent training: seconds since the last lap, without what was paused."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._paused_at: float | None = None

    def pause(self) -> None:
        """Nested pauses are one."""
        if self._paused_at is None:
            self._paused_at = time.perf_counter()

    def go_on(self) -> None:
        if self._paused_at is not None:
            self._start += time.perf_counter() - self._paused_at
            self._paused_at = None

    def lap(self) -> float:
        now = time.perf_counter()
        elapsed, self._start = now - self._start, now
        return elapsed


class RunRecord:
    """run.json: one entry in `starts` for each time the run was started. Kept by one rank.

    An entry without `outcome` is of a start that is running, or that was killed before it could say how it ended, and
    its supervisor with it: `process` tells the two apart where it can be seen.
    """

    def __init__(self, run_path: Path, *, name: str, manifest: str) -> None:
        self._path = run_path / FILE
        run_path.mkdir(parents=True, exist_ok=True)
        self._content: dict[str, Any] = {"name": name, "manifest": manifest, "starts": _earlier_starts(self._path)}

    def started(self, **facts: Any) -> None:
        """Append this start, with the facts of the machine added to the given ones."""
        process = {"process": asdict(this_process())}
        gpus = _gpus() if facts.get("device") == "cuda" else []
        self._content["starts"].append({"started": now(), **facts, **process, **_machine(), "gpus": gpus})
        self._write()

    def ended(self, *, iteration: int | None, outcome: str, why: str | None = None) -> None:
        """How this start ended. iteration: the last one that was trained, None if that is not known; outcome: one of
        OUTCOMES; why: the signal's name, or the sentence of the error.
        """
        assert outcome in OUTCOMES, outcome
        facts = {"ended": now(), "ended_at_iteration": iteration, "outcome": outcome, "why": why}
        self._content["starts"][-1] |= facts
        self._write()

    def _write(self) -> None:
        _write(self._path, self._content)


def end_unsaid(run_path: Path, why: str) -> None:
    """In the stead of a rank that was killed: the last start has failed, unless it said how it ended. OSError."""
    path = run_path / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        start = content["starts"][-1]
        if "ended" in start:
            return
        start |= {"ended": now(), "ended_at_iteration": None, "outcome": "failed", "why": why}
    except (ValueError, LookupError, TypeError):  # torn, or nobody's
        return
    _write(path, content)


def packages_of(run_path: Path) -> Mapping[str, str]:
    """Those of the last start, as packages() has them; none if the record does not say so."""
    start = next(reversed(_earlier_starts(run_path / FILE)), None)
    found = start.get("packages") if isinstance(start, dict) else None
    return found if isinstance(found, dict) else {}


def keep_build(run_path: Path, build: Path, files: Iterable[str]) -> None:
    """Copy the reviewed files of `build` beside the record, from which an export reads them; and, if they lie there,
    the places in the recipe, which no digest covers.
    """
    target = run_path / BUILD
    target.mkdir(parents=True, exist_ok=True)
    if not target.samefile(build):
        for name in (*sorted(files), "SHA256SUMS"):
            shutil.copyfile(build / name, target / name)
        if (build / ORIGINS).is_file():
            shutil.copyfile(build / ORIGINS, target / ORIGINS)


def _earlier_starts(path: Path) -> list[Any]:
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return starts if isinstance(starts, list) else []


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


def _machine() -> Mapping[str, Any]:
    return {
        "host": host_name(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "directory": str(Path.cwd()),
        "git_commit": _git_commit(),
        "packages": packages(),
        **{name: os.environ[variable] for name, variable in SLURM.items() if variable in os.environ},
    }


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    torch = sys.modules["torch"]  # which has said that there are some
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
