"""Kills at random moments, and whether each next start goes on from the last whole checkpoint: `make kills`.

    python kills.py [--kills 20] [--seed 0]     prints a table; status 1 if a recovery was not right

The quickstart, with two ranks, is trained through launch.sh. SIGKILL goes to a rank, to torchrun, to the supervisor, or
to the preparation of the data, whichever are alive at a moment drawn from the whole time of a start. After each kill
no process may be left, and the next start has to say that it resumes at the newest whole checkpoint. A run that
is through is compared with one that nobody disturbed, number by number, and another one begins.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftc.runtime.checkpoint.tracker import find_checkpoint
from sftc.runtime.metrics import MACHINE, read

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300  # seconds for what takes 30
SAVE_INTERVAL = 5
STATED = {
    "launch.nproc_per_node": 2,
    "train.micro_batch_size": 16,
    "train.train_iters": 60,
    "train.lr_warmup_iters": 5,
    "checkpoint.save_interval": SAVE_INTERVAL,
    "eval.eval_interval": 20,
    "data.num_workers": 1,
}
PHASES = ("preparing", "setting up", "training")
RESUMED = re.compile(r"^resuming `.*` at iteration (\d+) of \d+, in full$", re.MULTILINE)
BEGUN = "starting from random weights"
MARK = "SFTC_KILLS"


@dataclass(slots=True, kw_only=True)
class Kill:
    """`reached` is the last iteration that was logged, `saved` that of the newest whole checkpoint."""

    victim: str
    phase: str
    after: float  # seconds since launch.sh was started
    reached: int = 0
    saved: int = 0
    resumed: int | None = None
    wrong: list[str] = field(default_factory=list)


class Bench:
    """One build dir in `folder`, started again and again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self._draw = folder, random.Random(seed)
        (folder / "recipes").symlink_to(ROOT / "recipes")
        self._path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        words = [f"--set={key}={value}" for key, value in STATED.items()]
        recipe = folder / "recipes/quickstart/recipe.yaml"
        subprocess.run(
            [sys.executable, "-m", "sftc.compiler", "compile", recipe, "-o", folder / "build", *words],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        self.run = folder / "runs/quickstart"
        self.reference: list[dict[str, Any]] = []
        self.spans: dict[str, tuple[float, float]] = {}  # of an undisturbed start, in seconds

    def undisturbed(self) -> None:
        started = time.monotonic()
        process, log = self._start()
        prepared = self._until(lambda: self._pids("train"), process) - started
        stepped = self._until(lambda: self._reached(), process) - started
        assert process.wait(LIMIT) == 0, log.read_text()
        whole = time.monotonic() - started
        self.spans = dict(zip(PHASES, ((0.0, prepared), (prepared, stepped), (stepped, whole)), strict=True))
        self.reference = self._learnt()

    def kill(self, phase: str) -> Kill | None:
        """None if the run was through before the moment came."""
        if phase == "preparing":
            shutil.rmtree(self.folder / ".sftc", ignore_errors=True)  # or there would be nothing to prepare
        before = self._saved()
        low, high = self.spans[phase]
        moment = self._draw.uniform(low, high)
        started = time.monotonic()
        process, log = self._start()
        if phase == "training":  # counted from the first iteration, since some starts take longer
            done = self._reached()
            self._until(lambda: self._reached() > done or process.poll() is not None, process)
            moment = time.monotonic() - started + self._draw.uniform(0, high - low)
        while time.monotonic() - started < moment and process.poll() is None:
            time.sleep(0.005)
        victims = self._victims(process.pid)
        while not victims and process.poll() is None:
            victims = self._victims(process.pid)
        victim = self._draw.choice(sorted(victims)) if victims else None
        if victim is not None:
            os.kill(victims[victim], signal.SIGKILL)
        status = process.wait(LIMIT)
        found = Kill(victim=victim or "nobody", phase=phase, after=time.monotonic() - started)
        found.resumed = self._check(found, log, before)
        if victim is None or status == 0:
            assert status == 0, log.read_text()
            return None
        deadline = time.monotonic() + 60
        while left := list(self._marked()):
            if time.monotonic() > deadline:
                found.wrong.append(f"left behind: {left}")
                break
            time.sleep(0.05)
        found.reached, found.saved = self._reached(), self._saved()
        if not 0 <= found.reached - found.saved <= SAVE_INTERVAL:
            found.wrong.append(f"iteration {found.reached} was reached, {found.saved} is saved")
        return found

    def finish(self) -> list[str]:
        """Train to the end, and compare. What is wrong."""
        before = self._saved()
        process, log = self._start()
        status = process.wait(LIMIT)
        found = Kill(victim="nobody", phase="training", after=0)
        self._check(found, log, before)
        return [*found.wrong, *([f"status {status}: {log.read_text()}"] if status else []), *self.begin_anew()]

    def begin_anew(self) -> list[str]:
        """The run is through: how it differs from the undisturbed one; and away with it."""
        wrong = [] if self._learnt() == self.reference else ["other numbers than the undisturbed run's"]
        shutil.rmtree(self.run)
        return wrong

    def _start(self) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.folder / "log"
        variables = {**os.environ, "PATH": self._path, "CUDA_VISIBLE_DEVICES": "", MARK: str(self.folder)}
        with log.open("wb") as file:
            words = ["bash", "build/launch.sh"]
            return subprocess.Popen(words, cwd=self.folder, env=variables, stdout=file, stderr=file), log

    def _check(self, found: Kill, log: Path, before: int) -> int | None:
        """Whether this start went on where the last one had saved; None if it was killed before it said so."""
        text = log.read_text(errors="replace")
        match = RESUMED.search(text)
        if match is None and BEGUN not in text:
            return None
        resumed = int(match[1]) if match else 0
        if resumed != before:
            found.wrong.append(f"it went on from {resumed}, and {before} was saved")
        return resumed

    def _until(self, is_so: Any, process: subprocess.Popen[bytes]) -> float:
        deadline = time.monotonic() + LIMIT
        while not is_so():
            assert time.monotonic() < deadline
            assert process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)
        return time.monotonic()

    def _victims(self, launcher: int) -> dict[str, int]:
        found = {f"rank {at}": pid for at, pid in enumerate(self._pids("train"))}
        found |= dict(zip(["torchrun"], self._pids("torchrun"), strict=False))
        found |= dict(zip(["preparation"], self._pids("prepare"), strict=False))
        return found | ({"supervisor": launcher} if self._pids("watch") else {})

    def _pids(self, kind: str) -> list[int]:
        """The processes of one kind, by age, without those that they forked, which carry their words."""
        return sorted(pid for pid in self._marked() if _kind(pid) == kind != _kind(_parent(pid)))

    def _marked(self) -> Iterator[int]:
        mark = f"{MARK}={self.folder}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    yield int(path.name)
            except OSError:
                continue

    def _reached(self) -> int:
        path = self.run / "metrics.jsonl"
        return max((line["iteration"] for line in read(path) if "lm_loss" in line), default=0) if path.exists() else 0

    def _saved(self) -> int:
        found = find_checkpoint(self.run / "checkpoints")
        return found.iteration if found else 0

    def _learnt(self) -> list[dict[str, Any]]:
        lines = read(self.run / "metrics.jsonl")
        return [{key: value for key, value in line.items() if key not in MACHINE} for line in lines]


def _kind(pid: int) -> str | None:
    """`prepare`, `watch` or `train` of sftc.runtime, `torchrun`, or something else."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[1:-1]
    except OSError:
        return None
    if words[:1] == ["-u"]:
        words = words[1:]
    if words[:2] == ["-m", "sftc.runtime"]:
        return words[2]
    return "torchrun" if words and Path(words[0]).name == "torchrun" else None


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def measure(folder: Path, phases: Sequence[str], seed: int) -> tuple[list[Kill], list[str]]:
    """One kill in each of the phases, in that order; and what was wrong with the runs as a whole."""
    bench = Bench(folder, seed)
    bench.undisturbed()
    wrong = bench.begin_anew()
    kills: list[Kill] = []
    for phase in phases:
        while (kill := bench.kill(phase)) is None:
            wrong += bench.begin_anew()
        kills.append(kill)
        print(line(len(kills), kill), flush=True)
    return kills, wrong + bench.finish()


def line(number: int, kill: Kill) -> str:
    resumed = "-" if kill.resumed is None else str(kill.resumed)
    verdict = "; ".join(kill.wrong) or "ok"
    return (
        f"{number:>4}  {kill.victim:<11}  {kill.phase:<10}  {kill.after:>6.1f} s  {resumed:>12}  {kill.reached:>7}  "
        f"{kill.saved:>5}  {kill.reached - kill.saved:>4}  {verdict}"
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    phases = draw.choices(PHASES, weights=(1, 2, 4), k=options.kills)
    print("kill  victim       while          after  this start at  reached  saved  lost")
    with tempfile.TemporaryDirectory() as folder:
        kills, wrong = measure(Path(folder), phases, options.seed)
    right = sum(not kill.wrong for kill in kills)
    lost = sum(kill.reached - kill.saved for kill in kills)
    print(
        f"{len(kills)} kills, {right} without fault; {lost} iterations trained again, at most {SAVE_INTERVAL} for each"
    )
    print("every run that was through equals the undisturbed one" if not wrong else "\n".join(wrong))
    return int(right < len(kills) or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
