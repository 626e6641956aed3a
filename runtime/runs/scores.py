"""The scores of a run's answers: which lines of metrics.jsonl hold them, and their plots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..metrics import ANSWERED, PREFIX
from .plots import Curve, Point

COUNTS = (ANSWERED, f"{PREFIX}unfinished")
NUMBERS = {int, float, type(None)}

type Draw = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`curves` by their keys without the prefix; `scale`: from 0 to so much, None: as far as the values reach."""

    name: str
    unit: str
    curves: Mapping[str, str]
    scale: float | None = None


SCORES = {
    "exact_match": Score(name="Exact match", unit="share of the answers", curves={"exact_match": "right"}, scale=1),
    "token_accuracy": Score(
        name="Token accuracy", unit="share of the tokens", curves={"token_accuracy": "right"}, scale=1
    ),
    "perplexity": Score(name="Perplexity", unit="of the references", curves={"perplexity": "perplexity"}),
    "bleu": Score(name="BLEU", unit="0 to 100", curves={"bleu": "BLEU"}, scale=100),
    "chrf": Score(name="chrF", unit="0 to 100", curves={"chrf": "chrF"}, scale=100),
    "rouge": Score(
        name="ROUGE",
        unit="F-measure",
        curves={"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"},
        scale=1,
    ),
}
KINDS = ("valid", "train", "other")  # words for the style sheet, one for each curve of a plot


def score_points(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """By name without the prefix, in the order in which they came up; empty if nothing was ever answered."""
    points: dict[str, list[Point]] = {}
    for line in lines:
        if ANSWERED in line:
            for key, value in line.items():
                if key.startswith(PREFIX) and key not in COUNTS and type(value) in NUMBERS:
                    points.setdefault(key.removeprefix(PREFIX), []).append((line["iteration"], value))
    return points


def score_plots(
    points: Mapping[str, Sequence[Point]], definitions: Mapping[str, Any], draw: Draw
) -> list[dict[str, Any]]:
    """The plots, each with its `definition`: those with a name of sftc's, then those of the user's own function."""
    known = {key for score in SCORES.values() for key in score.curves}
    own = {name: Score(name=name, unit="from a hook", curves={name: name}) for name in points if name not in known}
    return [
        _plot(score, points, draw, str(definitions.get(metric, "")))
        for metric, score in {**SCORES, **own}.items()
        if any(key in points for key in score.curves)
    ]


def _plot(score: Score, points: Mapping[str, Sequence[Point]], draw: Draw, definition: str) -> dict[str, Any]:
    curves = [
        Curve(name=name, kind=kind, points=points[key])
        for (key, name), kind in zip(score.curves.items(), KINDS, strict=False)
        if key in points
    ]
    return draw(
        score.name, score.unit, curves, words=lambda value: f"{value:.4g}", reach=score.scale, definition=definition
    )
