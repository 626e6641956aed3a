"""Start ranks of the runtime the way torchrun does, or torchrun itself."""

import contextlib
import os
import random
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PYTHON = sys.executable
LIMIT = 480  # seconds; a launch takes about 15, and more on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    status: int
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A directory, the build in it, and how its training ended."""

    folder: Path
    build: Path
    ended: Ended


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": "", **extra}


def train(cwd: Path, build: Path, *, ranks: int = 1, **extra: str) -> Ended:
    """All ranks of one job on this machine, without a launcher. The status is the worst of theirs."""
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **extra}
    command = [PYTHON, "-m", "sftc.runtime", "train", str(build)]
    started = []
    for rank in range(ranks):
        with (cwd / f"stdout.{rank}").open("w") as stdout:
            variables = environment(RANK=str(rank), LOCAL_RANK=str(rank), **common)
            started.append(
                subprocess.Popen(command, cwd=cwd, env=variables, stdout=stdout, stderr=subprocess.PIPE, text=True)
            )
    try:
        errors = [process.communicate(timeout=LIMIT)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return Ended(status=max(process.returncode for process in started), stderr="".join(errors))


def torchrun(cwd: Path, build: Path, **extra: str) -> subprocess.Popen[str]:
    """torchrun with one rank, its stderr in `torchrun.err`."""
    command = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "--redirects", "1"]
    command += ["--log-dir", "logs", "-m", "sftc.runtime", "train", str(build)]
    with (cwd / "torchrun.err").open("w") as stderr:
        return subprocess.Popen(command, cwd=cwd, env=environment(**extra), stderr=stderr, text=True)


def processes_in(folder: Path) -> list[str]:
    """The processes that work in `folder`, by their words: ranks, and the helpers that Megatron spawns to save
    checkpoints.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def free_port() -> int:
    """A port of this machine that nobody listens at, below those that the system gives away by itself: until the job
    listens there, one of them may be gone.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(10_000, 20_000)))
            return int(probe.getsockname()[1])
