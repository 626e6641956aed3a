"""A tracker follows metrics.jsonl: every line goes to it once, over all restarts of the run, on a thread of its own.

`<tracker>.json` in the run directory keeps the tracker's id of the run and the last iterations that it was given, so
that a restarted run goes on there and is given what it missed. Iterations that are trained again are not sent again.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from ..atomic import replacing
from ..metrics import ANSWERED, FILE, PREFIX, read

WAIT = 60.0  # seconds at the end of the training for what is still on its way
LARGEST = 100  # lines that are sent at once
REASON = 200  # characters of what a library says
SIGN_IN = re.compile(r"://[^/\s@]+@")  # a user and a password in an address
NOTHING = {"train": 0, "valid": -1, "answers": -1, "lines": 0}  # evaluations may begin before the first iteration

type Line = Mapping[str, Any]


class Tracker(Protocol):
    """One service. Its methods are called on one thread, and may raise whatever its library raises."""

    name: str
    key: str

    def open(self, identity: str | None) -> str:
        """Go on with the run of that id, or begin one; the id."""

    def where(self) -> str:
        """At which place the run is seen, without anything secret."""

    def held(self) -> Mapping[str, int] | None:
        """The last iteration of each kind, `train`, `valid` and `answers`, by the service itself; None if it cannot be
        asked.
        """

    def log(self, lines: Sequence[tuple[int, Mapping[str, float]]], *, before: int) -> None:
        """Iterations and what was measured; `before`: how many lines were sent so far, over all starts."""

    def close(self, outcome: str) -> None:
        """The run is complete, stopped or failed."""


class Follower:
    """Between the training and a tracker. A tracker that fails is said so once, and the training goes on."""

    def __init__(self, tracker: Tracker, run_path: Path, *, manifest: str, say: Callable[[str], None]) -> None:
        self._tracker, self._run_path, self._say = tracker, run_path, say
        self._path = run_path / f"{tracker.key}.json"
        self._state: dict[str, Any] = {"manifest": manifest, "id": None, **NOTHING}
        self._state |= _earlier(self._path, manifest)
        self._queue: SimpleQueue[Line | None] = SimpleQueue()
        self._thread = Thread(target=self._follow, name=tracker.key, daemon=True)
        self._outcome = "failed"
        self._has_failed = False

    def begin(self) -> None:
        """Call it once metrics.jsonl holds what the training goes on from."""
        for line in read(self._run_path / FILE):
            self._queue.put(line)
        self._thread.start()

    def send(self, line: Line) -> None:
        """A line of metrics.jsonl. Returns at once."""
        if not self._has_failed:
            self._queue.put(line)

    def close(self, outcome: str) -> None:
        """Wait until the tracker has everything, but no longer than WAIT."""
        if not self._thread.is_alive():
            return
        self._outcome = outcome
        self._queue.put(None)
        self._thread.join(WAIT)
        if self._thread.is_alive():
            self._warn(f"has not taken everything within {WAIT:.0f} s; {FILE} has it all")

    def _follow(self) -> None:
        try:
            self._state["id"] = self._tracker.open(self._state["id"])
            self._say(f"{self._tracker.name} follows this run: {self._tracker.where()}")
            self._state |= self._tracker.held() or {}
            self._keep()
            is_open = True
            while is_open:
                lines = [self._queue.get()]
                while lines[-1] is not None and len(lines) < LARGEST and not self._queue.empty():
                    lines.append(self._queue.get())
                is_open = lines[-1] is not None
                self._log([line for line in lines if line is not None])
            self._tracker.close(self._outcome)
        # A library may raise anything, and give up by SystemExit.
        except (Exception, SystemExit) as error:
            self._has_failed = True
            reason = SIGN_IN.sub("://...@", next(iter(str(error).splitlines()), ""))[:REASON]
            self._warn(f"gets no more of this run ({type(error).__name__}: {reason}); {FILE} has it all")

    def _log(self, lines: Sequence[Line]) -> None:
        """The mark is set first: a kill in between loses a line there rather than sending it twice."""
        before, measured = dict(self._state), []
        for line in lines:
            kind = "answers" if ANSWERED in line else "valid" if "valid_loss" in line else "train"
            if line["iteration"] > self._state[kind]:
                self._state[kind] = line["iteration"]
                measured.append((line["iteration"], _named(kind, line)))
        if not measured:
            return
        self._state["lines"] += len(measured)
        self._keep()
        try:
            self._tracker.log(measured, before=before["lines"])
        except BaseException:
            self._state = before
            self._keep()
            raise

    def _keep(self) -> None:
        with replacing(self._path) as file:
            file.write(json.dumps(self._state) + "\n")

    def _warn(self, what: str) -> None:
        self._say(f"WARNING: {self._tracker.name} {what}")


def _named(kind: str, line: Line) -> dict[str, float]:
    """`train/lm_loss`, `valid/loss`, `valid/exact_match`; what is not finite is null in the file and left out here."""
    found = {name: value for name, value in line.items() if name != "iteration" and value is not None}
    if kind == "train":
        return {f"train/{name}": value for name, value in found.items()}
    return {f"valid/{name.removeprefix(PREFIX)}": value for name, value in found.items()}


def _earlier(path: Path, manifest: str) -> dict[str, Any]:
    """What an earlier start of the same build left; nothing if it was another build, or the file is torn."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        kept = {"id": str(state["id"]), **{name: int(state.get(name, none)) for name, none in NOTHING.items()}}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return kept if state["manifest"] == manifest and state["id"] is not None else {}
