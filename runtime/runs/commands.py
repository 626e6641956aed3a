"""What `sftc runs` and `sftc report` ask for. Loaded by name, by the command line."""

from collections.abc import Sequence
from math import isnan
from typing import Any

from ..progress import duration
from ..record import BUILD
from .page import page
from .run import Run, find_runs, is_run, read_run

__all__ = ["BUILD", "documents", "find_runs", "is_run", "page", "read_run", "table"]

DAY = 86_400
MATCH = "exact match"  # is left out where no run has one
COLUMNS = ("run", "state", "iteration", "loss", "validation", MATCH, "tokens/s", "checkpoint", "starts")
LEFT = {"run", "state", "checkpoint"}


def documents(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The runs as JSON has them: a number that is not finite is null."""
    return [
        {
            "run": str(run.path),
            "name": run.name,
            "state": run.state,
            "why": run.why,
            "iteration": run.iteration,
            "iterations": run.iterations,
            "loss": _finite(run.loss),
            "valid_loss": _finite(run.valid_loss),
            "valid_iteration": run.valid_iteration,
            "exact_match": _finite(run.exact_match),
            "tokens_per_second": _finite(run.tokens_per_second),
            "checkpoint": None
            if run.checkpoint is None or run.checkpoint_age is None
            else {"iteration": run.checkpoint, "age_seconds": round(run.checkpoint_age, 1), "save": str(run.save)},
            "starts": len(run.starts),
            "problems": list(run.problems),
        }
        for run in runs
    ]


def table(runs: Sequence[Run]) -> str:
    """A line for each run under a line of titles; numbers to the right."""
    rows = [COLUMNS, *(_row(run) for run in runs)]
    shown = [at for at, name in enumerate(COLUMNS) if name != MATCH or any(run.exact_match is not None for run in runs)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]

    def padded(text: str, at: int) -> str:
        return text.ljust(widths[at]) if COLUMNS[at] in LEFT else text.rjust(widths[at])

    return "".join("  ".join(padded(row[at], at) for at in shown).rstrip() + "\n" for row in rows)


def _row(run: Run) -> tuple[str, ...]:
    total = "" if run.iterations is None else f"/{run.iterations}"
    age = "" if run.checkpoint_age is None else f" ({_age(run.checkpoint_age)} ago)"
    return (
        str(run.path),
        run.state,
        "-" if run.iteration is None else f"{run.iteration}{total}",
        _shown(run.loss, ".4f"),
        _shown(run.valid_loss, ".4f"),
        _shown(run.exact_match, ".3f"),
        _shown(run.tokens_per_second, ",.0f"),
        "-" if run.checkpoint is None else f"{run.checkpoint}{age}",
        str(len(run.starts)),
    )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _age(seconds: float) -> str:
    return duration(seconds) if seconds < 2 * DAY else f"{seconds / DAY:.0f}d"


def _finite(value: float | None) -> float | None:
    return None if value is None or isnan(value) else value
