"""What launch.sh and `sftc preflight` ask for; the latter loads it by name. Imports no torch."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ..bundle import Bundle, read_bundle
from ..errors import UserError
from ..progress import complain, say
from ..record import Stopwatch
from . import table
from .meeting import Refusal, endpoint
from .nodes import Node
from .places import Markers
from .several import Preflight, alone
from .survey import survey

type Style = Literal["brief", "table", "json"]


def run(build_dir: Path) -> int:
    """For launch.sh, on every node: 0 if all may go on, 1 on every node if one of them may not. One line where all is
    fine, the table where it is not, from the first node.
    """
    return _preflight(build_dir, "brief", sys.stderr.isatty() and "NO_COLOR" not in os.environ)


def show(build_dir: Path, *, as_json: bool, colour: bool) -> int:
    """The same for a person, with the table or its JSON on stdout, and in the environment that launch.sh would make."""
    return _preflight(build_dir, "json" if as_json else "table", colour)


def _preflight(build_dir: Path, style: Style, colour: bool) -> int:
    clock = Stopwatch()
    with _interruptible():
        try:
            bundle = read_bundle(build_dir)
            if style != "brief":
                _export(bundle)
            return _check(bundle, style, colour, clock)
        except UserError as error:
            complain(error)
            return 1


def _check(bundle: Bundle, style: Style, colour: bool, clock: Stopwatch) -> int:
    nnodes, count = (int(bundle.value(f"launch.{name}")) for name in ("nnodes", "nproc_per_node"))
    at = endpoint(bundle.name, bundle.plan.get("port"), nnodes) if nnodes > 1 else None

    def told(nodes: list[Node]) -> bool:
        _tell(nodes, style, colour, clock.lap(), nnodes)
        return table.status_of(nodes) != "failed"

    markers = Markers(bundle)
    try:
        found = survey(bundle, markers)
        if at is None:
            return 0 if told([alone(found, count, nnodes)]) else 1
        answer = asyncio.run(Preflight(at, found, markers, count, say).run(told))
    finally:
        markers.remove(folders=at is None)
    if isinstance(answer, Refusal):
        raise UserError(f"preflight: {answer.text}", answer.help)
    if not answer.goes_on and answer.told_by and "SLURM_JOB_ID" not in os.environ:  # where all write to one log
        say(f"preflight: failed; the first node, {answer.told_by}, says where and why")
    return 0 if answer.goes_on else 1


def _tell(nodes: list[Node], style: Style, colour: bool, seconds: float, nnodes: int) -> None:
    status = table.status_of(nodes)
    line = table.summary(nodes, seconds, nnodes)
    if style == "json":
        print(json.dumps(table.document(nodes, seconds), indent=2, ensure_ascii=False), flush=True)
    elif style == "table":
        print(f"{table.table(nodes, colour=colour)}\n{line}", flush=True)
    elif status == "ok":
        say(line)
    else:
        say(f"{table.table(nodes, whole=status == 'failed', colour=colour)}{line}")
    if status == "failed" and style == "brief":
        say("nothing was started; `bash launch.sh --no-preflight` leaves these checks out")


def _export(bundle: Bundle) -> None:
    """What launch.sh exports, and Megatron from where the recipe says that it is."""
    os.environ.update({item["name"]: item["value"] for item in bundle.plan.get("environment", ())})
    if (checkout := bundle.value("megatron.path")) is not None:
        sys.path.insert(0, checkout)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = checkout + (f":{before}" if before else "")


@contextmanager
def _interruptible() -> Iterator[None]:
    """A signal ends this process as an exception does, so that it leaves nothing behind."""

    def leave(number: int, _: FrameType | None) -> Any:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
