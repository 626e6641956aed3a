"""The ranks of this node that try an all-reduce: started, listened to, and ended whatever they do."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .finding import Finding

LOADING = 40.0  # seconds for torch to be loaded, from a cold network file system, and for the GPU to be ready
REDUCING = 30.0  # for the ranks to meet, and to reduce
STILL = 5.0  # without a sign of life, of which there is one every second
INTERVAL = 0.05
CHECK = "all-reduce"
WAKE = ("timed out", "timeout", "by peer")  # in errors of ranks that have lost another one, or waited for it
NETWORK = (
    "NCCL_DEBUG=INFO says what NCCL does; NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME, in `launch.environment`, names the "
    "network interface"
)


class Rank:
    """One process. `stage` is how far it is, `said` the last line that is no message."""

    def __init__(self, number: int, *, gpu: bool) -> None:
        self.name = f"GPU {number}" if gpu else "the process"
        self.stage = "started"
        self.error: str | None = None
        self.said = ""
        self._sign = time.monotonic()
        variables = os.environ if gpu else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "sftc.runtime.preflight.collective", f"cuda:{number}" if gpu else "cpu"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=variables,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def go(self, told: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        with suppress(OSError):  # it has ended, which problem() says
            self._child.stdin.write(json.dumps(told) + "\n")
            self._child.stdin.flush()

    @property
    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def problem(self) -> tuple[str, bool] | None:
        """What keeps it from being done, and whether it is to blame; None if it is done."""
        if self.stage == "reduced":
            return None
        if self.error is not None:
            return f"{self.name}: {self.error}", not any(sign in self.error.lower() for sign in WAKE)
        if self.has_ended:
            status = self._child.returncode
            return f"{self.name} ended with status {status}" + (f": {self.said}" if self.said else ""), True
        if time.monotonic() - self._sign > STILL:
            return f"{self.name} stands still, it gives no sign of life", True
        return f"{self.name} waited", False

    def end(self) -> None:
        self._child.kill()
        self._child.wait()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._sign = time.monotonic()
            try:
                message = json.loads(line)
                self.stage = message.get("stage", self.stage)
                self.error = message.get("error", self.error)
            except (ValueError, AttributeError):
                self.said = line.strip()[:200]


class Ranks:
    """Those of one node."""

    def __init__(self, count: int, device: str) -> None:
        self._gpu = device == "cuda"
        self._ranks = [Rank(number, gpu=self._gpu) for number in range(count)]

    def load(self) -> Finding | None:
        """Wait until torch is loaded in all of them; None if it is."""
        self._wait(lambda rank: rank.stage == "loaded", LOADING)
        slow = [rank for rank in self._ranks if rank.stage == "started"]
        if not slow:
            return None
        if (found := slow[0].problem()) is not None and (slow[0].error or slow[0].has_ended):
            text, help = f"torch cannot be loaded: {found[0]}", "`python -c 'import torch'` shows the whole error"
            return Finding(check=CHECK, status="failed", text=text, help=help)
        text = f"torch was not loaded within {LOADING:g} s"
        return Finding(check=CHECK, status="failed", text=text, help="the file system that it lies on may be slow")

    def reduce(self, host: str, port: int, first: int, world: int) -> Finding:
        """Add up over all nodes: this node's ranks are `first` and those after it. A node that waited for others in
        vain says so as `skipped`: another one is to blame, or nobody.
        """
        backend = "nccl" if self._gpu else "gloo"
        # Gloo says in time whom it waited for; NCCL would abort the process.
        seconds = REDUCING + 60 if self._gpu else REDUCING - 4
        told = {"host": host, "port": port, "world": world, "backend": backend, "seconds": seconds}
        for number, rank in enumerate(self._ranks):
            rank.go({**told, "rank": first + number})
        self._wait(lambda rank: rank.stage == "reduced", REDUCING)
        found = [problem for rank in self._ranks if (problem := rank.problem()) is not None]
        if not found:
            unit = ("GPU" if world == 1 else "GPUs") if self._gpu else "processes"
            return Finding(check=CHECK, status="ok", text=f"{world} {unit} over {backend}")
        if blamed := [text for text, is_blamed in found if is_blamed]:
            return Finding(check=CHECK, status="failed", text=f"{'; '.join(blamed)} ({backend})", help=NETWORK)
        return Finding(check=CHECK, status="skipped", text=f"{found[0][0]} in vain ({backend})")

    def end(self) -> None:
        for rank in self._ranks:
            rank.end()

    def _wait(self, is_done: Callable[[Rank], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(is_done(rank) or rank.error or rank.has_ended for rank in self._ranks):
                return
            time.sleep(INTERVAL)


def free_port() -> int:
    """A port of this node that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
