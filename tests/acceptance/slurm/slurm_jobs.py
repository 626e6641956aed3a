"""Jobs that are really submitted, and the build dirs that they are made of."""

import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner
from cluster import Cluster

from sftc.compiler.cli import cli

# Stands for Python and torchrun where Slurm alone is the subject: prepares nothing, trains nothing, and says what a
# node is told. STAND_IN is what a rank does then.
FAKE = """#!/usr/bin/env bash
case " $* " in *" preflight "* | *" prepare "*) exit 0 ;; esac
# The pause: srun ends the other nodes when one has left, and each is to say so.
trap 'echo "node $SLURMD_NODENAME saves"; sleep 2; exit 75' USR1 TERM
echo "node $SLURMD_NODENAME is $SLURM_PROCID of $SLURM_NTASKS, meets at ${MASTER_ADDR-nobody}:${MASTER_PORT-}"
eval "$STAND_IN"
"""
WAITS = "sleep 60 & wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job, or one task of an array."""

    cluster: Cluster
    id: str
    log: Path

    def facts(self) -> dict[str, str]:
        """What `scontrol show job` says."""
        shown = self.cluster.run("scontrol", "show", "job", "-o", self.id).splitlines()[0]
        return dict(re.findall(r"(\S+?)=(\S*)", shown))

    def reaches(self, *states: str, seconds: float = 60) -> str:
        """The first of `states` that the job is in."""
        self.until(lambda: self.facts()["JobState"] in states, f"no state of {states}", seconds)
        return self.facts()["JobState"]

    def says(self, text: str, *, times: int = 1, seconds: float = 60) -> None:
        """Waits until the log holds `text`."""
        self.until(lambda: self.text().count(text) >= times, f"the log does not say {text!r}", seconds)

    def until(self, happened: Callable[[], bool], otherwise: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, f"{otherwise} after {seconds} s: {self.facts()}\n{self.text()}"
            time.sleep(0.2)

    def ended(self, seconds: float = 60) -> str:
        """State, exit code and number of restarts of the job when it has ended; also printed."""
        self.reaches("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE", seconds=seconds)
        facts = self.facts()
        answer = f"{facts['JobState']} {facts['ExitCode']} Restarts={facts['Restarts']}"
        print(f"{facts['JobName']} {self.id}: {answer} Reason={facts['Reason']} NodeList={facts['NodeList']}")
        return answer

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def compiled(recipe: Path, build: Path, **changes: object) -> Path:
    """The build dir of `recipe`; `launch__nnodes=2` overrides `launch.nnodes`."""
    words = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    options = [word for change in words for word in ("--set", change)]
    done = CliRunner().invoke(cli, ["compile", str(recipe), "-o", str(build), *options])
    assert done.exit_code == 0, done.output
    return build


def submit(
    cluster: Cluster, build: Path, cwd: Path, *options: str, path: str = "", handed: str = "", **variables: str
) -> Job:
    """The job of `sbatch launch.sbatch` from `cwd`, with the folder `path` first on PATH; `handed` follows the file."""
    programs = f"{path}:{Path(sys.executable).parent}:{os.environ['PATH']}".removeprefix(":")
    words = ["sbatch", "--parsable", *options, str(build / "launch.sbatch"), *handed.split()]
    number = cluster.run(*words, cwd=cwd, PATH=programs, CUDA_VISIBLE_DEVICES="", **variables).strip()
    name = re.search(r"--job-name=(\S+)", (build / "launch.sbatch").read_text())
    assert name is not None
    return Job(cluster=cluster, id=number, log=cwd / f"{name[1]}-{number}.out")
