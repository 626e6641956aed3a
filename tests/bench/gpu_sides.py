"""The three sides of `gpu_speed.py`, each in processes of its own: `ours`, `plain` and `trl`."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from gpu_case import RESULT, Case, Found, recipe
from memory import tree

from sftc.runtime.bundle import read_bundle
from sftc.runtime.data.prepare import POINTER
from sftc.runtime.metrics import FILE, read

HERE = Path(__file__).resolve().parent
ATTENTION = ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN")
LIMIT = 240  # seconds for a case
NO_MEMORY = re.compile(r"OutOfMemoryError|out of memory|has not enough memory on its GPU")
ELAPSED = re.compile(r"elapsed time per iteration \(ms\): ([\d.]+)")
# What a launch does, each with the line that is said when it is done.
PHASES = {
    "files checked, rows found": re.compile(r"data (already )?prepared in "),
    "preflight": re.compile(r"preflight: "),
    "torchrun and torch": re.compile(r"Megatron \S+: .* setting up"),
    "Megatron, model and optimizer": re.compile(r"training, iteration 1 of "),
    "first iteration": re.compile(r"iteration +1/"),
}


class DoesNotFit(Exception):
    """The GPU has too little memory for the micro-batch."""


class Failed(Exception):
    """With the end of the log."""


class Run:
    """A process and its lines, each with the seconds since the start."""

    def __init__(self, words: Sequence[str | Path], folder: Path, *, cpu: bool) -> None:
        # one GPU: TRL refuses to see more of them in one process
        gpu = "" if cpu else os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # each side chooses its attention, and Megatron refuses another choice in its environment
        inherited = {name: value for name, value in os.environ.items() if name not in ATTENTION}
        self._began = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            [str(word) for word in words],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**inherited, "PATH": path, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": gpu},
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic() - self._began, line.rstrip()))

    def until(self, done: Callable[[], bool] = lambda: False) -> None:
        """Until `done`, or the end of the process. Raises what a status other than 0 means."""
        while not done() and self.process.poll() is None:
            if time.monotonic() - self._began > LIMIT:
                raise Failed(f"not done within {LIMIT} s\n{self.end()}")
            time.sleep(0.02)
        if self.process.poll() is not None:
            self._reader.join(10)
        if self.process.poll():
            raise DoesNotFit if NO_MEMORY.search(self.text()) else Failed(f"status {self.process.poll()}\n{self.end()}")

    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def end(self) -> str:
        return "\n".join(line for _, line in self.lines[-30:])

    def result(self) -> dict[str, Any]:
        found = [line.removeprefix(RESULT) for _, line in self.lines if line.startswith(RESULT)]
        if not found:
            raise Failed(f"says no result\n{self.end()}")
        result: dict[str, Any] = json.loads(found[-1])
        return result

    def stop(self) -> None:
        """Kill it with all that it has started, and wait until the GPU's memory is free again."""
        if self.process.poll() is not None:
            return
        numbers = tree(self.process.pid)
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
        give_up = time.monotonic() + 20
        while any(map(_is_alive, numbers)) and time.monotonic() < give_up:
            time.sleep(0.02)


def _is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@contextmanager
def running(words: Sequence[str | Path], folder: Path, *, cpu: bool) -> Iterator[Run]:
    run = Run(words, folder, cpu=cpu)
    try:
        yield run
    finally:
        run.stop()


def matmul(folder: Path, *, cpu: bool) -> dict[str, Any]:
    with running([sys.executable, HERE / "matmul.py", *(["cpu"] if cpu else [])], folder, cpu=cpu) as run:
        run.until()
        return run.result()


def ours(case: Case, folder: Path, settings: Sequence[str] = ()) -> Found:
    """A compiled recipe through launch.sh, with prepared data. It is killed once the last iteration is logged: how long
    a checkpoint of many GB takes is not asked here.
    """
    (folder / "recipe.yaml").write_text(recipe(case))
    words = [sys.executable, "-m", "sftc.compiler", "compile", "recipe.yaml", "-o", "build"]
    for first in (
        [*words, *(f"--set={one}" for one in settings)],
        [sys.executable, "-m", "sftc.runtime", "prepare", "build"],
    ):
        with running(first, folder, cpu=case.cpu) as run:
            run.until()
    metrics = folder / "run" / FILE

    def logged() -> list[dict[str, Any]]:
        return [line for line in read(metrics) if "lm_loss" in line]

    with running(["bash", folder / "build/launch.sh"], folder, cpu=case.cpu) as run:
        run.until(lambda: len(logged()) >= case.iterations)
        steps = logged()
        start = phases(run.lines)
    tokens = _tokens(case, folder, len(steps))
    return Found(
        seconds=[count / step["tokens_per_second"] for count, step in zip(tokens, steps, strict=True)],
        tokens=tokens,
        supervised=[step["supervised_tokens"] for step in steps],
        memory_bytes=steps[-1]["memory_bytes"] if steps else None,
        notes={"start": start},
    )


def phases(lines: Sequence[tuple[float, str]]) -> dict[str, float]:
    """Seconds of each phase of a launch; one whose line is not there is part of the next one."""
    found, before = {}, 0.0
    for name, said in PHASES.items():
        at = next((seconds for seconds, line in lines if said.match(line)), None)
        if at is not None:
            found[name], before = at - before, at
    return found


def _tokens(case: Case, folder: Path, count: int) -> list[int]:
    """Of the rows of each of the first `count` global batches."""
    from sftc.runtime.data.dataset import PreparedData  # brings torch

    pointer = json.loads((folder / "run" / POINTER).read_text())
    samples = PreparedData.open(folder / pointer["store"]).train(
        num_samples=case.batch * count,
        seed=read_bundle(folder / "build").value("train.seed"),
        global_batch_size=case.batch,
        micro_batch_size=case.micro,
    )
    tokens = [sum(samples.lengths_in(number)) for number in range(count)]
    if not case.packed and set(tokens) != {case.batch * case.shape.seq_length}:
        raise Failed(f"rows of other lengths than {case.shape.seq_length}: {tokens}")
    return tokens


def plain(case: Case, folder: Path, _: Sequence[str] = ()) -> Found:
    (folder / "case.json").write_text(case.dumps())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running([sys.executable, HERE / "plain_megatron.py", "case.json", str(port)], folder, cpu=case.cpu) as run:
        run.until()
        memory = run.result()["memory_bytes"]
        seconds = [float(number) / 1000 for number in ELAPSED.findall(run.text())]
    tokens = [case.batch * case.shape.seq_length] * len(seconds)
    return Found(seconds=seconds, tokens=tokens, supervised=tokens, memory_bytes=memory)


def trl(case: Case, folder: Path, _: Sequence[str] = ()) -> Found:
    (folder / "case.json").write_text(case.dumps())
    with running([sys.executable, HERE / "trl_train.py", "case.json"], folder, cpu=case.cpu) as run:
        run.until()
        return Found(**run.result())


SIDES: dict[str, Callable[[Case, Path, Sequence[str]], Found]] = {"ours": ours, "plain": plain, "trl": trl}
