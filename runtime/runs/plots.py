"""Curves as geometry: what a template needs to draw one as SVG, in a square of SIDE by SIDE that is stretched to fit.

Nothing is HTML here. Labels are placed in percent, so that their size does not follow that of the picture.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, floor, isfinite, log10
from statistics import median
from typing import Any

SIDE = 1000
BUCKETS = 900  # of a long curve; each shows its lowest and its highest value
DOTTED = 60  # up to so many values each has a dot
SMOOTHED = 100  # from so many values on a mean runs along
TICKS_UP, TICKS_ACROSS = 4, 6
SHARE = 50  # of all values that the mean is taken over: one in so many
SPREAD = 50  # how many times the median the highest value may be before the scale is logarithmic
MARGIN = 0.06  # of the height, above and below

type Point = tuple[int, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """`points` by growing iteration; None is a value that is not finite. `kind` is a word for the style sheet."""

    name: str
    kind: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From a value to its share of the axis, 0 to 1."""

    low: float
    high: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        if self.is_log:
            return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return (value - self.low) / (self.high - self.low)


def plot(
    title: str,
    unit: str,
    curves: Sequence[Curve],
    *,
    across: Scale,
    words: Callable[[float], str],
    restarts: Iterable[tuple[int, int]] = (),
    from_zero: bool = False,
    smooth: bool = False,
    reach: float | None = None,
    definition: str = "",
) -> dict[str, Any]:
    """Everything that the template writes of one plot. restarts: iteration and number of every start but the first;
    reach: the scale goes from 0 to here, or to what lies beyond.
    """
    curves = [curve for curve in curves if curve.points]
    finite = [value for curve in curves for _, value in curve.points if value is not None]
    up = _scale_up(finite, from_zero=from_zero, reach=reach)
    missing = [at for curve in curves for at, value in curve.points if value is None]
    drawn = [(curve, thinned(curve.points)) for curve in curves]
    lines = [_line(curve.kind, points, across, up) for curve, points in drawn]
    notes = [f"logarithmic scale, {unit}" if up.is_log else unit]
    if smooth and curves and len(curves[0].points) >= SMOOTHED:
        span = max(10, len(curves[0].points) // SHARE)
        lines[0]["kind"] += " faint"
        mean = running_mean(curves[0].points, span // 2)
        lines.insert(1, {**_line(curves[0].kind, mean, across, up), "dots": ""})
        notes.append(f"strong: mean over about {span:,} values")
    if missing:
        notes.append(f"{len(missing):,} {'value is' if len(missing) == 1 else 'values are'} not finite (red)")
    return {
        "title": title,
        "notes": notes,
        "definition": definition,
        "empty": "" if finite else "no value is finite" if curves else "nothing was logged",
        "lines": lines,
        "missing": [_share(across(at)) for at in sorted({at for at, _ in thinned([(at, 0.0) for at in missing])})],
        "restarts": [
            {"at": _share(across(at)), "text": str(number)} for at, number in restarts if 0 <= across(at) <= 1
        ],
        "up": [{"at": _share(1 - up(value)), "text": words(value)} for value in _ticks_up(up)] if finite else [],
        "across": [
            {"at": _share(across(value)), "text": short(value), "kind": "odd" if number % 2 else "even"}
            for number, value in enumerate(steps(across.low, across.high, TICKS_ACROSS, whole=True))
        ],
        "low": across.low,
        "high": across.high,
        "series": [_series(curve, points, up, words) for curve, points in drawn],
        "summary": "; ".join(_summary(curve, words) for curve in curves) or "nothing was logged",
    }


def across_scale(iterations: Sequence[int]) -> Scale:
    """The axis that all plots of a run share."""
    low, high = (min(iterations), max(iterations)) if iterations else (0, 1)
    return Scale(low=low - 1, high=high + 1) if low == high else Scale(low=low, high=high)


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most about 2 * BUCKETS points, the lowest and the highest of each stretch; a None where it had any."""
    if len(points) <= 2 * BUCKETS:
        return points
    kept: list[Point] = []
    for bucket in range(BUCKETS):
        part = points[bucket * len(points) // BUCKETS : (bucket + 1) * len(points) // BUCKETS]
        chosen: dict[int, float | None] = {}
        if finite := [(value, at) for at, value in part if value is not None]:
            chosen = {at: value for value, at in (min(finite), max(finite))}
        gap = next((at for at, value in part if value is None), None)
        if gap is not None:
            chosen[gap] = None
        kept += sorted(chosen.items(), key=lambda point: point[0])
    if points[-1] not in kept[-3:]:
        kept.append(points[-1])
    return kept


def running_mean(points: Sequence[Point], reach: int) -> list[Point]:
    """Of a value and up to `reach` on either side, as many on one as on the other, so that it does not lag; at the ends
    still of some, or it would be as restless there as the values. At most about 2 * BUCKETS, evenly spread.
    """
    sums = [0.0, *accumulate(0.0 if value is None else value for _, value in points)]
    counts = [0, *accumulate(int(value is not None) for _, value in points)]
    found: list[Point] = []
    last = len(points) - 1
    for place in [*range(0, last, max(1, len(points) // (2 * BUCKETS))), last]:
        at, value = points[place]
        wide = max(min(reach, place, last - place), reach // 4)
        low, high = max(place - wide, 0), min(place + wide, last) + 1
        mean = None if value is None else (sums[high] - sums[low]) / (counts[high] - counts[low])
        found.append((at, mean))
    return found


def steps(low: float, high: float, wanted: int, *, whole: bool = False) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from `low` to `high`, about `wanted` of them."""
    least = (high - low) / wanted
    power = 10.0 ** floor(log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [step * at for at in range(first, last + 1)]


def short(value: float) -> str:
    """Few characters, for an axis: 1500 is 1.5k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _scale_up(values: Sequence[float], *, from_zero: bool, reach: float | None) -> Scale:
    if not values:
        return Scale(low=0, high=1)
    low, high = min(values), max(values)
    if reach is not None:
        return Scale(low=min(low, 0), high=max(high, reach))
    if not from_zero and low > 0 and high > SPREAD * median(values):
        return Scale(low=low / 1.1, high=high * 1.1, is_log=True)
    if from_zero and low >= 0:
        return Scale(low=0, high=high * (1 + MARGIN) or 1)
    room = (high - low) * MARGIN or abs(high) * 0.1 or 1
    # A loss or a norm has no values below zero, nor should its axis.
    return Scale(low=max(low - room, 0) if low >= 0 else low - room, high=high + room)


def _ticks_up(up: Scale) -> list[float]:
    if not up.is_log:
        return steps(up.low, up.high, TICKS_UP)
    powers = range(ceil(log10(up.low)), floor(log10(up.high)) + 1)
    if len(powers) < 3:
        finer = [factor * 10.0**power for power in range(floor(log10(up.low)), powers.stop) for factor in (1, 3)]
        return [value for value in finer if up.low <= value <= up.high]
    stride = ceil(len(powers) / (TICKS_UP + 1))
    return [10.0**power for power in powers[::stride]]


def _line(kind: str, points: Sequence[Point], across: Scale, up: Scale) -> dict[str, str]:
    """`path` breaks at each None; `dots` are strokes of no length, which round ends make visible. Values outside of the
    scale, which a logarithmic one can have none of, are drawn at its edge.
    """
    path: list[str] = []
    dots: list[str] = []
    is_open = False
    for at, value in points:
        if value is None or (up.is_log and value <= 0):
            is_open = False
            continue
        place = f"{SIDE * across(at):.1f} {SIDE * (1 - up(value)):.1f}"
        # A lone value between two gaps would be a line of no length.
        path.append(f"L{place}" if is_open else f"M{place}h0")
        dots.append(f"M{place}h0")
        is_open = True
    return {"kind": kind, "path": "".join(path), "dots": "".join(dots) if len(dots) <= DOTTED else ""}


def _series(curve: Curve, points: Sequence[Point], up: Scale, words: Callable[[float], str]) -> dict[str, str]:
    """What the page's script shows under the pointer."""
    finite = [(at, value) for at, value in points if value is not None]
    last = curve.points[-1]
    return {
        "name": curve.name,
        "kind": curve.kind,
        "iterations": " ".join(str(at) for at, _ in finite),
        "heights": " ".join(f"{100 * (1 - up(value)):.2f}" for _, value in finite),
        "values": " ".join(words(value) for _, value in finite),
        "last": "not finite" if last[1] is None else words(last[1]),
        "at": f"{last[0]:,}",
    }


def _summary(curve: Curve, words: Callable[[float], str]) -> str:
    finite = [(value, at) for at, value in curve.points if value is not None and isfinite(value)]
    if not finite:
        return f"{curve.name}: no finite value"
    low, high = min(finite), max(finite)
    return (
        f"{curve.name}: from {words(finite[0][0])} at iteration {finite[0][1]:,} to {words(finite[-1][0])} at "
        f"{finite[-1][1]:,}, lowest {words(low[0])}, highest {words(high[0])}"
    )


def _share(part: float) -> str:
    return f"{100 * part:.2f}%"
