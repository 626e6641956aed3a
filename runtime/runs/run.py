"""One run as its directory tells it: the record, the end of the metrics, the newest checkpoint, the plan."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..answers.answer import FILE as ANSWERS
from ..checkpoint.owner import Seen, read_owner
from ..checkpoint.tracker import TRACKER, find_checkpoint
from ..errors import UserError
from ..metrics import ANSWERED, newest
from ..metrics import FILE as METRICS
from ..pointer import FILE as POINTER
from ..progress import duration
from ..record import BUILD, OUTCOMES, Process, epoch_seconds
from ..record import FILE as RECORD

DEPTH = 2  # folders below the named one in which runs are looked for
# Besides the outcomes: no outcome, and it is seen to live, is seen not to, or neither; no start; an unreadable record.
STATES = (*OUTCOMES, "running", "lost", "unknown", "prepared", "unreadable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is not known is None. `why` is how the last start ended, or what shows that it lives no more. `loss`,
    `valid_loss`, `exact_match` are the last ones, NaN where the file has null.
    """

    path: Path
    name: str
    state: str
    why: str | None = None
    starts: Sequence[Mapping[str, Any]] = ()
    manifest: str | None = None
    iteration: int | None = None
    iterations: int | None = None
    loss: float | None = None
    valid_loss: float | None = None
    valid_iteration: int | None = None
    exact_match: float | None = None
    tokens_per_second: float | None = None
    checkpoint: int | None = None
    checkpoint_age: float | None = None  # seconds
    save: Path | None = None
    seen: float | None = None  # when a line was last written, in seconds since 1970
    problems: tuple[str, ...] = field(default=())


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory, be it one in which no rank has started yet."""
    return (path / RECORD).is_file() or (path / POINTER).is_file()


def find_runs(path: Path) -> list[Path]:
    """`path` itself if it is a run, or the runs below it, by name. OSError if it cannot be read."""
    if is_run(path):
        return [path]
    found: list[Path] = []
    level = [path]
    for _ in range(DEPTH):
        children = sorted(child for folder in level for child in _folders(folder, strict=folder == path))
        found += [child for child in children if is_run(child)]
        level = [child for child in children if not is_run(child)]
    return sorted(found)


def read_run(path: Path) -> Run:
    """Never fails: `problems` names every file that is torn or cannot be read."""
    problems: list[str] = []
    plan = json_object(path / BUILD / "plan.json", problems)
    name = _text(plan.get("name")) or path.name
    if not (path / RECORD).is_file():
        return Run(path=path, name=name, state="prepared")
    record = json_object(path / RECORD, problems)
    starts = record.get("starts")
    if not isinstance(starts, list) or not starts or not all(isinstance(start, dict) for start in starts):
        if not problems:
            problems.append(f"{path / RECORD} names no starts")
        return Run(path=path, name=name, state="unreadable", problems=tuple(problems))
    save = _save_path(path, plan, starts[-1])
    total = _iterations(plan, starts[-1])
    none: dict[str, dict[str, Any]] = {}
    # A key that no line has is looked for in the whole file.
    keys = ["lm_loss", "valid_loss", *([ANSWERED] if (path / ANSWERS).is_file() else [])]
    lines = _guarded(lambda: newest(path / METRICS, *keys), none, problems)
    last, valid = lines.get("lm_loss", {}), lines.get("valid_loss", {})
    checkpoint, age = _checkpoint(save, problems) if save else (None, None)
    state, why = _state(starts[-1], total, save, problems)
    return Run(
        path=path,
        name=_text(record.get("name")) or name,
        state=state,
        why=why,
        starts=starts,
        manifest=_text(record.get("manifest")),
        iteration=last.get("iteration", starts[-1].get("ended_at_iteration")),
        iterations=total,
        loss=_number(last, "lm_loss"),
        valid_loss=_number(valid, "valid_loss"),
        valid_iteration=valid.get("iteration"),
        exact_match=_number(lines.get(ANSWERED, {}), "valid_exact_match"),
        tokens_per_second=_number(last, "tokens_per_second"),
        checkpoint=checkpoint,
        checkpoint_age=age,
        save=save,
        seen=_guarded(lambda: (path / METRICS).stat().st_mtime, None, []),
        problems=tuple(problems),
    )


def _folders(path: Path, *, strict: bool) -> list[Path]:
    try:
        return [child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")]
    except OSError:
        if strict:
            raise
        return []


def _state(
    start: Mapping[str, Any], total: int | None, save: Path | None, problems: list[str]
) -> tuple[str, str | None]:
    """Of the last start that is recorded, and why. A later one may be on its way, which holds the directory by then."""
    why = _text(start.get("why"))
    if (outcome := start.get("outcome")) in OUTCOMES:
        return str(outcome), why
    if "ended" in start:  # written before there were outcomes
        return ("complete" if total is not None and start.get("ended_at_iteration") == total else "stopped"), why
    process = _process(start)
    lives = process.lives_here if process else None
    if lives:
        return "running", None
    found = len(problems)
    seen = _owner(save, problems) if save else None
    if process and lives is False:
        gone = f"process {process.pid} on {start.get('host', 'this host')} is gone"
        return "lost", f"{gone}, and {seen.name} holds the checkpoint directory" if seen and seen.is_alive else gone
    if seen is None:
        if save is None or len(problems) > found:
            return "unknown", "whether it lives cannot be seen from here"
        return "lost", "nothing holds the checkpoint directory"
    if seen.is_alive:
        return "running", None
    silent = seen.owner is None or seen.owner.lives_here is None
    end = f"has given no sign of life for {duration(seen.silence)}" if silent else "is gone"
    return "lost", f"{seen.name}, which held the checkpoint directory, {end}"


def _process(start: Mapping[str, Any]) -> Process | None:
    """The one that kept the record; None in records from before it was named there."""
    try:
        process = Process(**start["process"])
    except (KeyError, TypeError):
        return None
    return process if isinstance(process.pid, int) else None


def _owner(save: Path, problems: list[str]) -> Seen | None:
    """Who holds the checkpoint directory, alive or not."""
    try:
        return read_owner(save)
    except OSError as error:
        problems.append(f"the lock in {save} cannot be read: {error}")
        return None


def _checkpoint(save: Path, problems: list[str]) -> tuple[int | None, float | None]:
    try:
        found = find_checkpoint(save)
        if found is None:
            return None, None
        return found.iteration, max(epoch_seconds() - (save / TRACKER).stat().st_mtime, 0.0)
    except (OSError, UserError) as error:
        problems.append(error.message if isinstance(error, UserError) else str(error))
        return None, None


def _save_path(path: Path, plan: Mapping[str, Any], start: Mapping[str, Any]) -> Path | None:
    """Beside the run where it was there from the start, so that a run directory can be moved."""
    save, logged = _value(plan, "checkpoint", "save"), _value(plan, "logging", "run_path")
    if not isinstance(save, str) or not isinstance(logged, str):
        return path / "checkpoints" if (path / "checkpoints").is_dir() else None
    if Path(save).is_relative_to(logged):
        return path / Path(save).relative_to(logged)
    return Path(_text(start.get("directory")) or ".") / save


def _iterations(plan: Mapping[str, Any], start: Mapping[str, Any]) -> int | None:
    """Of the whole run: what Megatron was told last, or what the plan says."""
    words = start.get("arguments")
    if isinstance(words, list) and "--train-iters" in words[:-1]:
        text = words[len(words) - 1 - words[::-1].index("--train-iters") + 1]
        if str(text).isdecimal():
            return int(text)
    stated = _value(plan, "train", "train_iters")
    return stated if isinstance(stated, int) else None


def _value(plan: Mapping[str, Any], section: str, name: str) -> Any:
    try:
        return plan["values"][section][name]["value"]
    except (KeyError, TypeError):
        return None


def json_object(path: Path, problems: list[str]) -> dict[str, Any]:
    """The JSON object in `path`; an empty one if there is none, which is a problem if the file is there."""

    def read() -> dict[str, Any]:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        return content

    return _guarded(read, {}, problems, path) if path.exists() else {}


def _guarded[T](read: Callable[[], T], otherwise: T, problems: list[str], path: Path | None = None) -> T:
    try:
        return read()
    except (OSError, ValueError) as error:
        problems.append(f"{path} cannot be read: {error}" if path else f"{error}")
        return otherwise


def _number(line: Mapping[str, Any], key: str) -> float | None:
    value = line.get(key, line)
    if value is None:
        return float("nan")
    return float(value) if isinstance(value, int | float) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
