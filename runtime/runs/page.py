"""What the page of a run shows, as plain data: text, numbers and the geometry of its plots. Nothing here is HTML."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from math import isnan
from statistics import median
from typing import Any

from ..answers.answer import DEFINITIONS
from ..metrics import FILE, KEYS, read
from ..progress import duration
from ..record import epoch_seconds
from .answers import answers
from .plots import Curve, Point, across_scale, plot, short
from .run import Run, json_object
from .scores import NUMBERS, Draw, score_plots, score_points
from .starts import starts_of

LOGGED = (*KEYS[1:], "valid_loss")
MEGA, GIGA = 2**20, 2**30
SAYS = {
    "complete": "Complete",
    "running": "Running",
    "stopped": "Stopped",
    "failed": "Failed",
    "lost": "Lost",
    "unknown": "Unknown",
}


def page(run: Run) -> dict[str, Any]:
    """Everything that the template writes, but for the plan and the manifest, which the compiler reads."""
    problems = list(run.problems)
    try:
        lines = read(run.path / FILE)
    except OSError as error:
        lines, problems = [], [*problems, str(error)]
    points, scores = {key: _points(lines, key) for key in LOGGED}, score_points(lines)
    draw = _drawing(run, [*points.values(), *scores.values()])
    try:
        answered = answers(run.path)
    except OSError as error:
        answered, problems = {}, [*problems, str(error)]
    definitions = json_object(run.path / DEFINITIONS, problems)
    last = run.starts[-1] if run.starts else {}
    done, total = run.iteration or 0, run.iterations
    share = min(done / total, 1.0) if total else 0.0
    return {
        "name": run.name,
        "state": {"word": SAYS.get(run.state, run.state.capitalize()), "kind": run.state, "about": _about(run)},
        "problems": problems,
        "written": _moment(epoch_seconds()),
        "progress": {
            "share": f"{share:.2%}",
            "percent": f"{int(100 * share)}%",
            "text": f"iteration {done:,}" + (f" of {total:,}" if total else ""),
        },
        "cards": [{"label": label, "value": value, "note": note} for label, value, note in _cards(run, points, scores)],
        "plots": _plots(points, str(last.get("device", "")), draw),
        "scores": score_plots(scores, definitions, draw),
        "answers": answered,
        **starts_of(run, epoch_seconds()),
        "machine": _machine(last),
        "packages": [
            {"name": str(name), "value": str(version)} for name, version in _mapping(last, "packages").items()
        ],
        "arguments": " ".join(str(word) for word in last.get("arguments", ()))
        if isinstance(last.get("arguments"), list)
        else "",
    }


def _about(run: Run) -> str:
    """A sentence behind the state."""
    if run.state in ("lost", "unknown"):
        return f"The last start never said how it ended: {run.why}."
    if run.state in ("failed", "stopped") and run.why:
        return run.why
    if run.state == "prepared":
        return "The data is prepared; no rank has started yet."
    return ""


def _cards(
    run: Run, points: Mapping[str, Sequence[Point]], scores: Mapping[str, Sequence[Point]]
) -> list[tuple[str, str, str]]:
    losses, valid = points["lm_loss"], points["valid_loss"]
    finite = [(value, at) for at, value in losses if value is not None]
    best = min(((value, at) for at, value in valid if value is not None), default=None)
    speeds = [value for _, value in points["tokens_per_second"] if value is not None]
    memory = [value for _, value in points["memory_bytes"] if value is not None]
    tokens = sum(int(value) for _, value in points["supervised_tokens"] if value is not None)
    first = f"from {finite[0][0]:.4g} at iteration {finite[0][1]:,}" if finite else "never finite"
    cards = [("training loss", _shown(run.loss, ".4f"), first if losses else "nothing was logged")]
    if valid:
        note = f"best {best[0]:.4f}, iteration {best[1]:,}" if best else "never finite"
        cards.append(("validation loss", _shown(run.valid_loss, ".4f"), note))
    if matches := [(value, at) for at, value in scores.get("exact_match", ()) if value is not None]:
        most, when = max(matches, key=lambda found: (found[0], -found[1]))
        cards.append(("exact match", f"{matches[-1][0]:.4g}", f"best {most:.4g}, iteration {when:,}"))
    if speeds:
        cards.append(("tokens/s", short(round(median(speeds))), "in the median"))
    if tokens:
        cards.append(("trained on", short(tokens), "supervised tokens"))
    if memory:
        words, unit = _bytes(max(memory))
        cards.append(("memory", f"{words(max(memory) / unit[1])} {unit[0]}", "at most"))
    if run.checkpoint is not None:
        age = "" if run.checkpoint_age is None else f"{duration(run.checkpoint_age)} before this page"
        cards.append(("last checkpoint", f"{run.checkpoint:,}", age))
    return cards


def _drawing(run: Run, points: Sequence[Sequence[Point]]) -> Draw:
    """How each plot is drawn: all share the axis of iterations and the marks of restarts."""
    restarts = [
        (start["iteration"], number)
        for number, start in enumerate(run.starts, start=1)
        if number > 1 and isinstance(start.get("iteration"), int)
    ]
    across = across_scale([found[end][0] for found in points if found for end in (0, -1)])
    return partial(plot, across=across, restarts=restarts)


def _plots(points: Mapping[str, Sequence[Point]], device: str, draw: Draw) -> list[dict[str, Any]]:
    memory = points["memory_bytes"]
    words, (unit, size) = _bytes(max((value for _, value in memory if value is not None), default=0.0))
    held = "allocated on the GPU, at its peak so far" if device == "cuda" else "resident in the process that reports"

    def curve(key: str, name: str, kind: str = "train") -> Curve:
        return Curve(name=name, kind=kind, points=points[key])

    losses = [curve("lm_loss", "training"), curve("valid_loss", "validation", "valid")]
    scaled = [(at, None if value is None else value / size) for at, value in memory]
    tokens = [curve("tokens_per_second", "tokens/s")]
    return [
        draw("Loss", "nats per supervised token", losses, words=_figure, smooth=True),
        draw("Learning rate", "per iteration", [curve("learning_rate", "rate")], words=_figure, from_zero=True),
        draw("Gradient norm", "before clipping", [curve("grad_norm", "norm")], words=_figure, smooth=True),
        draw("Throughput", "tokens of rows per second", tokens, words=short, from_zero=True, smooth=True),
        draw("Memory", f"{unit}, {held}", [Curve(name=unit, kind="train", points=scaled)], words=words, from_zero=True),
    ]


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    return [(line["iteration"], line[key]) for line in lines if key in line and type(line[key]) in NUMBERS]


def _machine(start: Mapping[str, Any]) -> list[dict[str, str]]:
    gpus = start.get("gpus")
    gpus = [str(gpu) for gpu in gpus] if isinstance(gpus, list) else []
    found = {
        "host": start.get("host"),
        "device": start.get("device"),
        "ranks": start.get("world_size"),
        "GPUs of the host": ", ".join(f"{gpus.count(gpu)} of {gpu}" for gpu in dict.fromkeys(gpus)),
        "platform": start.get("platform"),
        "Python": start.get("python"),
        "directory": start.get("directory"),
        "git commit": start.get("git_commit"),
        "Slurm job": start.get("slurm_job_id"),
    }
    return [{"name": name, "value": str(value)} for name, value in found.items() if value not in (None, "")]


def _mapping(start: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = start.get(key)
    return value if isinstance(value, dict) else {}


def _bytes(most: float) -> tuple[Callable[[float], str], tuple[str, int]]:
    """How numbers of that size are written, their unit and its size in bytes."""
    unit = ("GiB", GIGA) if most >= GIGA else ("MiB", MEGA)
    return (lambda value: f"{value:.4g}"), unit


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _shown(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return "not finite" if isnan(value) else format(value, form)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
