"""The starts of a run on a line of time, and as a table."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..progress import duration
from ..record import OUTCOMES
from .run import Run

WAYS = {
    "random": "from random weights",
    "weights": "from given weights",
    "continue": "goes on from another run",
    "resume": "resumed",
}

UNKNOWN = "not known"


def starts_of(run: Run, now: float) -> dict[str, Any]:
    """`starts`, the rows of the table, and `time`, the line. `now`, in seconds since 1970, ends one that is running."""
    moments = [(_seconds(start.get("started")), _seconds(start.get("ended"))) for start in run.starts]
    rows, bars = [], []
    known = [begin for begin, _ in moments if begin is not None]
    ends = [end for _, end in moments if end is not None]
    is_open = run.state in ("lost", "unknown")
    seen = [now] if run.state == "running" else [run.seen] if is_open and run.seen is not None else []
    first, last = min(known, default=0.0), max([*known, *ends, *seen], default=0.0)
    whole = max(last - first, 1.0)
    trained = 0.0
    for at, (start, (begin, end)) in enumerate(zip(run.starts, moments, strict=True)):
        is_last = at == len(run.starts) - 1
        outcome = _outcome(start, run.state if is_last else "lost")
        if end is None and outcome == "running":
            end = now
        seconds = None if begin is None or end is None else max(end - begin, 0.0)
        trained += seconds or 0.0
        row = _row(at + 1, start, outcome, seconds, run.iteration if is_last else None)
        rows.append(row | {"why": row["why"] or (run.why or "" if is_last else "")})
        if begin is not None:
            # Of a start that was killed nobody knows when: it reaches to the next one, or to the last thing known.
            until = end if end is not None else next((other for other, _ in moments[at + 1 :] if other), last)
            bars.append(
                {
                    "left": f"{100 * (begin - first) / whole:.3f}%",
                    "width": f"{100 * max(until - begin, 0) / whole:.3f}%",
                    "kind": outcome,
                    "text": str(at + 1),
                    "about": f"start {at + 1}, {rows[-1]['host']}: {rows[-1]['duration']}, {outcome}",
                }
            )
    time = {
        "bars": bars,
        "from": _words(first) if known else "",
        "to": ("now" if run.state == "running" else _words(last)) if known else "",
        "whole": duration(whole),
        "trained": ("at least " if any(row["duration"] == UNKNOWN for row in rows) else "") + duration(trained),
    }
    return {"starts": rows, "time": time}


def _row(
    number: int, start: Mapping[str, Any], outcome: str, seconds: float | None, logged: int | None
) -> dict[str, str]:
    first, last = start.get("iteration"), start.get("ended_at_iteration")
    last = logged if last is None else last
    begin = _seconds(start.get("started"))
    restarts = start.get("slurm_restart_count")
    job = f"job {start['slurm_job_id']}" if start.get("slurm_job_id") else ""
    return {
        "number": str(number),
        "started": UNKNOWN if begin is None else _words(begin),
        "way": WAYS.get(str(start.get("start")), str(start.get("start", ""))),
        "host": " · ".join(filter(None, (str(start.get("host", "")), job, f"requeue {restarts}" if restarts else ""))),
        "iterations": f"{_count(first)} → {_count(last)}",
        "duration": UNKNOWN if seconds is None else duration(seconds),
        "outcome": outcome,
        "why": start["why"] if isinstance(start.get("why"), str) else "",
    }


def _outcome(start: Mapping[str, Any], otherwise: str) -> str:
    outcome = start.get("outcome")
    if outcome in OUTCOMES:
        return str(outcome)
    # Records had no outcomes once; a start that said its end was not lost.
    return "stopped" if "ended" in start and otherwise == "lost" else otherwise


def _count(iteration: Any) -> str:
    return f"{iteration:,}" if isinstance(iteration, int) else "?"


def _seconds(moment: Any) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (TypeError, ValueError):
        return None


def _words(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
