"""How fast the quickstart trains on a CPU, against a plain PyTorch loop of the same model: `make bench-cpu`.

    python tests/bench/cpu_speed.py [--rounds N] [--iterations N] [--json FILE]

A round trains through `bash launch.sh`, from nothing to the end, and beside it by `plain_loop.py`: the same sizes, the
same batches, as many threads as launch.sh gives. The two take turns of some iterations, one standing still (SIGSTOP)
while the other trains: what else the machine does hits both alike. Speeds count the tokens of rows and no padding, as
metrics.jsonl does; evaluations and checkpoints are not counted, nor are the first iterations and those in which a turn
began. Of the rest, the speed is the median, and the ratio is the median of the ratios batch by batch, so that single
stalls do not count. Where the loop had far less than a core for a thread, others had it, and the figures say little.
The status is 1 if the ratio is below the target, or if one of both has not learnt.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from plain_loop import Loop

from sftc.runtime.bundle import read_bundle
from sftc.runtime.metrics import FILE, read

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/quickstart/recipe.yaml"
RUN = Path("runs/quickstart")
WARM = 20  # iterations until caches are filled and the allocator has what it needs
TURN = 5  # iterations, some tenths of a second
AT_LAST = 10  # iterations whose mean loss is the loss at the end
TARGET = 0.9
QUIET = 0.95  # of a core for each thread
COUNTED = re.compile(r"number of parameters on .*: (\d+)$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=300, help="of the recipe, unless given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.iterations < 2 * WARM:
        parser.error(f"at least {2 * WARM} iterations, of which the first {WARM} are not counted")
    with tempfile.TemporaryDirectory(prefix="bench-cpu-") as folder:
        place = Path(folder)
        build = compiled(place, options.iterations)
        rounds = []
        for number in range(options.rounds):
            root = place / f"round-{number + 1}"
            root.mkdir()
            (root / "recipes").symlink_to(ROOT / "recipes")
            # a process of its own: what a loop has freed would make the next one faster
            with get_context("spawn").Pool(1) as pool:
                rounds.append(pool.apply(measured, (build, root, options.iterations)))
            print(f"round {number + 1} of {options.rounds}: {spelt(rounds[-1])}", file=sys.stderr, flush=True)
    found = summary(rounds)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(found["ratio"] < TARGET or not found["both_learnt"])


def compiled(place: Path, iterations: int) -> Path:
    build = place / "build"
    words = [sys.executable, "-m", "sftc.compiler", "compile", str(RECIPE), "-o", str(build)]
    settings = [f"train.train_iters={iterations}", "launch.device=cpu"]
    subprocess.run([*words, *(f"--set={one}" for one in settings)], cwd=ROOT, check=True, capture_output=True)
    return build


def threads_of(build: Path) -> int:
    """That launch.sh gives a rank."""
    told = subprocess.run(["bash", build / "launch.sh", "--dry-run"], check=True, capture_output=True, text=True).stdout
    words = next(shlex.split(line) for line in told.splitlines() if line.startswith("export "))
    return int(dict(word.split("=", 1) for word in words[1:])["OMP_NUM_THREADS"])


def measured(build: Path, root: Path, iterations: int) -> dict[str, Any]:
    """One round, in the directory `root`."""
    os.chdir(root)
    threads = threads_of(build)
    with launched(build) as launch:
        wait_for(WARM, launch)
        rank = rank_of(build)
        with standing_still(rank):
            loop = Loop(read_bundle(build), iterations, threads)
            take_turn(loop, WARM)
        disturbed = set(range(WARM))
        while len(loop.losses) < iterations:
            wait_for(min(len(logged()) + TURN + 1, iterations), launch)
            with standing_still(rank):
                disturbed |= {len(logged()), len(loop.losses)}
                take_turn(loop, min(TURN + 1, iterations - len(loop.losses)))
        launch.wait()
        wait_for(iterations, launch)
    steps = logged()
    tokens = [loop.tokens(number) for number in range(iterations)]
    seconds = [[count / step["tokens_per_second"] for count, step in zip(tokens, steps, strict=True)], loop.seconds]
    counted = sorted(set(range(iterations)) - disturbed)
    speeds = [[tokens[at] / side[at] for at in counted] for side in seconds]
    logs = "".join(path.read_text() for path in (RUN / "logs").rglob("stdout.log"))
    losses = [[step["lm_loss"] for step in steps], loop.losses]
    return {
        "threads": threads,
        "counted": len(counted),
        "tokens_per_second": [median(side) for side in speeds],
        "ratio": median(ours / plain for ours, plain in zip(*speeds, strict=True)),
        "share_of_a_core": loop.cpu_seconds / sum(loop.seconds) / threads,
        "parameters": [sum(int(count) for count in COUNTED.findall(logs)), loop.parameters()],
        "losses": [(side[0], fmean(side[-AT_LAST:])) for side in losses],
    }


@contextmanager
def launched(build: Path) -> Iterator[subprocess.Popen[bytes]]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with Path("launch.log").open("wb") as log:
        words = ["bash", str(build / "launch.sh"), "--no-preflight"]
        launch = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "PATH": path})
    try:
        yield launch
    finally:
        launch.terminate()
        launch.wait()


def logged() -> list[dict[str, Any]]:
    """The iterations of launch.sh so far."""
    return [line for line in read(RUN / FILE) if "lm_loss" in line]


def wait_for(iterations: int, launch: subprocess.Popen[bytes]) -> None:
    while len(logged()) < iterations:
        if launch.poll() is not None and len(logged()) < iterations:
            raise RuntimeError(f"launch.sh: status {launch.returncode}\n{Path('launch.log').read_text()}")
        time.sleep(0.02)


def rank_of(build: Path) -> int:
    """The process that torchrun started."""
    wanted = ["-m", "sftc.runtime", "train", str(build)]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                words = (entry / "cmdline").read_text().split("\0")[:-1]
                if words[-4:] == wanted and "watch" not in words and not any("torchrun" in word for word in words):
                    return int(entry.name)
    raise RuntimeError("torchrun has started no rank")


@contextmanager
def standing_still(rank: int) -> Iterator[None]:
    with suppress(ProcessLookupError):  # it is through
        os.kill(rank, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(rank, signal.SIGCONT)


def take_turn(loop: Loop, iterations: int) -> None:
    for _ in range(iterations):
        loop.step()


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """All figures by name: those of the round with the median ratio, the lower one of two, of the rounds in which the
    loop had its cores to itself, if there are any.
    """
    quiet = [one for one in rounds if one["share_of_a_core"] >= QUIET] or rounds
    middle = sorted(quiet, key=lambda one: one["ratio"])[(len(quiet) - 1) // 2]
    return {
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "megatron_core": version("megatron-core"),
        "ratios": [round(one["ratio"], 3) for one in rounds],
        "both_learnt": all(last < 0.7 * first for one in rounds for first, last in one["losses"]),
        **middle,
    }


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {len(os.sched_getaffinity(0))} cores"


def spelt(one: dict[str, Any]) -> str:
    ours, plain = one["tokens_per_second"]
    share = f"{one['share_of_a_core']:.0%} of a core"
    return f"launch.sh {ours:,.0f} tokens/s, plain loop {plain:,.0f} with {share}, ratio {one['ratio']:.3f}"


def table(found: dict[str, Any]) -> str:
    names = ("`bash launch.sh`", "plain PyTorch loop")
    sides = zip(names, found["tokens_per_second"], found["parameters"], found["losses"], strict=True)
    return "\n".join(
        [
            f"\n{found['cpu']}, {found['threads']} thread(s), torch {found['torch']}, "
            f"megatron-core {found['megatron_core']}; {found['counted']} iterations of a round counted; "
            f"the loop had {found['share_of_a_core']:.0%} of a core for each thread\n",
            "| | tokens/s | parameters | first loss | last losses |",
            "|---|---|---|---|---|",
            *(
                f"| {name} | {speed:,.0f} | {count:,} | {first:.3f} | {last:.3f} |"
                for name, speed, count, (first, last) in sides
            ),
            f"\nratio {found['ratio']:.3f}, at least {TARGET}: {'ok' if found['ratio'] >= TARGET else 'MISSED'} "
            f"(rounds: {', '.join(f'{ratio:.3f}' for ratio in found['ratios'])})",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
