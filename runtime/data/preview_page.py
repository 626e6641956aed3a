"""What the HTML page of a preview shows, as plain data: text, numbers and the geometry of its charts.

The page is a function of the prepared data and the choice of samples: no clock, no host, no absolute path. Nothing here
is HTML; the template `preview.html` writes it, and its filter escapes every text.
"""

from collections.abc import Mapping, Sequence
from math import ceil, log10
from typing import Any

from .preview import Shown, Token
from .reasons import REASONS, WAYS
from .visible import NEWLINE, visible

TITLES = {"train": "Training data", "valid": "Validation data"}
# A chart in the units of its picture; the plot is what its axes enclose.
WIDTH, HEIGHT = 560, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 14, 40
TICKS_ACROSS, TICKS_UP = 6, 4
GAP = 1.5


def page(statistics: Mapping[str, Any], notices: Sequence[str], samples: Sequence[Shown]) -> dict[str, Any]:
    """Everything that the template writes, in its order."""
    settings: Mapping[str, Any] = statistics["settings"]
    return {
        "name": statistics["name"],
        "notices": list(notices),
        "splits": [_split(name, numbers, settings) for name, numbers in statistics["splits"].items()],
        "samples": [_sample(number, sample) for number, sample in enumerate(samples, start=1)],
        "settings": _pairs(_flat(settings)),
        "digests": _pairs(_digests(statistics)),
    }


def _split(name: str, numbers: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    share = numbers["supervised_tokens"] / max(numbers["tokens"] - numbers["kept"], 1)
    length, limit = numbers["length"], settings["seq_length"] + 1
    left_out = numbers["rows"] - numbers["kept"]
    cards = [
        ("samples", f"{numbers['kept']:,}", f"of {numbers['rows']:,} rows"),
        ("tokens", _short(numbers["tokens"]), f"{length.get('median', 0):,.10g} in the median"),
        ("trained on", f"{share:.1%}", f"{numbers['supervised_tokens']:,} labels"),
        ("longest", f"{length.get('max', 0):,.10g}", f"tokens, of {limit:,} that fit"),
        ("left out", f"{left_out:,}", f"{left_out / max(numbers['rows'], 1):.1%} of the rows"),
        ("cut", f"{numbers['truncated']:,}", f"{numbers['tokens_cut']:,} tokens lost"),
    ]
    if packing := numbers.get("packing"):
        packs = f"in {packing['packs']:,} packs of {packing['positions']:,} positions"
        cards.append(("positions in use", f"{packing['use']:.2%}", packs))
    if len(numbers["sources"]) > 1:
        cards += [
            (f"source {at}", f"{part['kept']:,}", f"of {part['rows']:,} rows, {_short(part['tokens'])} tokens")
            for at, part in enumerate(numbers["sources"], start=1)
        ]
    return {
        "name": name,
        "title": TITLES[name],
        "cards": [{"label": label, "value": value, "note": note} for label, value, note in cards],
        "charts": [
            _chart("Length", "tokens in a sample", numbers["length_histogram"], limit=limit),
            _chart(
                "Share trained on", "of the labels of a sample", numbers["supervised_share_histogram"], percent=True
            ),
        ],
        "lost": _lost(numbers, settings),
        "proofs": [
            {"way": way, "count": f"{count:,}", "how": WAYS.get(way, "")} for way, count in numbers["proven_by"].items()
        ],
        "bad_rows": [visible(line) for line in numbers["first_bad_rows"]],
    }


def _lost(numbers: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """What was dropped, cut or found odd; counts of zero are not told."""
    found = [
        (reason, count, f"left out: {REASONS.get(reason, 'see the rows below')}")
        for reason, count in numbers["dropped"].items()
    ]
    found += [
        ("cut", numbers["truncated"], f"{settings['on_overlong']}: {numbers['tokens_cut']:,} tokens are lost"),
        ("repeated", numbers["duplicates"], "kept: the sample is the same as an earlier one"),
        ("no reasoning", numbers["messages_without_their_reasoning"], "the chat template leaves it out"),
    ]
    return [{"what": what, "count": f"{count:,}", "why": why} for what, count, why in found if count]


def _sample(number: int, sample: Shown) -> dict[str, Any]:
    return {
        "anchor": f"sample-{number}",
        "title": f"{sample.split} sample {sample.row:,}",
        "headline": sample.headline,
        "share": f"{sample.trained / max(sample.labels, 1):.2%}",
        "tokens": [_token(place, token, len(sample.tokens)) for place, token in enumerate(sample.tokens, start=1)],
    }


def _token(place: int, token: Token, count: int) -> dict[str, str]:
    """`kind` is a word for the style sheet; `about` is what hovering or moving to the token tells."""
    text = visible(token.text) if token.part == 1 else "⋯"
    if token.parts == 1:
        said = f"“{text}”"
    else:
        said = f"part {token.part} of {token.parts} of a text that only they spell together"
    state = "trained on" if token.trained else "not trained on"
    special = "special, " if token.special else ""
    kind = ("y" if token.trained else "n") + (" s" if token.special else "")
    return {
        "kind": kind,
        # The break that a line feed stands for follows its sign.
        "text": text.replace(NEWLINE, f"{NEWLINE}\n") or "∅",
        "about": f"token {place:,} of {count:,} · id {token.id} · {said} · {special}{state}",
    }


def _chart(
    title: str, unit: str, bars: Sequence[Sequence[float]], *, percent: bool = False, limit: int | None = None
) -> dict[str, Any]:
    """A histogram: rectangles, ticks and words, in the coordinates of a picture of WIDTH by HEIGHT."""
    highest = max((int(count) for _, _, count in bars), default=0)
    steps_up = _round_steps(highest, TICKS_UP)
    top, end = steps_up[-1], bars[-1][1] if bars else 1
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(value: float) -> float:
        return round(LEFT + plot_width * value / end, 2)

    def up(count: float) -> float:
        return round(TOP + plot_height * (1 - count / top), 2)

    def words(value: float) -> str:
        return f"{value:.0%}" if percent else f"{value:,.0f}"

    rows = [
        {
            "x": round(across(low) + GAP / 2, 2),
            "y": up(count),
            "width": round(across(high) - across(low) - GAP, 2),
            "height": round(TOP + plot_height - up(count), 2),
            "range": f"{words(low)} to {words(high)}",
            "count": f"{int(count):,}",
        }
        for low, high, count in bars
    ]
    ticks = (
        [share / 5 for share in range(6)] if percent else [at for at in _round_steps(end, TICKS_ACROSS) if at <= end]
    )
    return {
        "title": title,
        "unit": unit,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "base": HEIGHT - BOTTOM,
        "middle": LEFT + plot_width // 2,
        "bars": [row for row in rows if row["count"] != "0"],
        "across": [{"x": across(at), "text": words(at)} for at in ticks],
        "up": [{"y": up(at), "text": f"{at:,}"} for at in steps_up],
        "limit": [{"x": across(limit), "text": f"limit {limit:,}"}] if limit is not None and limit <= end else [],
        "up_x": LEFT - 8,
        "label_y": HEIGHT - BOTTOM + 16,
        "unit_y": HEIGHT - 6,
    }


def _round_steps(most: float, wanted: int) -> list[int]:
    """0 and multiples of 1, 2 or 5 times a power of ten up to `most` or just above, about `wanted` of them."""
    least = max(most / wanted, 1)
    power = 10 ** int(log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
    return [step * at for at in range(max(ceil(most / step), 1) + 1)]


def _short(count: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            return f"{count / (1000 if unit == 'k' else size):,.1f} {unit}"
    return f"{count:,}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and a text; what is not set is left out."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            pairs.append((f"{prefix}{key}", visible(f"{value:,}" if type(value) is int else str(value))))
    return pairs


def _digests(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    named = {"store": statistics["key"], "rows": statistics["rows"], "tokenizer": statistics["tokenizer"]}
    return _flat({**named, "chat template": statistics["template"]})


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]
