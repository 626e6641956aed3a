"""The answers that the page of a run shows, conversation by conversation, as plain data."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..answers.answer import FILE
from ..answers.log import Logged, read
from ..data.visible import visible

EVALUATIONS = 6  # on a page, and
CONVERSATIONS = 50  # of each of them, of which
OPEN = 10  # are seen without a click
LONGEST = 50_000  # characters of a text
HIGH, LINES = 700, 12  # characters and lines from which on a text is scrolled in a place of its own
VERDICTS = {True: ("right", "✓ right"), False: ("wrong", "✗ wrong"), None: ("open", "○ nothing to compare")}

# What stays the same over the evaluations: row, question, prompt, reference.
type Conversation = tuple[int, str, str, str]


def answers(path: Path) -> dict[str, Any]:
    """Of the run directory `path`; empty if it holds none. OSError if they cannot be read.

    `evaluations`, the newest last, are some of those in the file, and `conversations` are some of theirs, each with its
    `answers`, by the place in `evaluations`.
    """
    tallies: dict[int, Counter[str]] = {}
    for line in read(path / FILE):
        tallies.setdefault(line.iteration, Counter()).update(_counted(line))
    if not tallies:
        return {}
    chosen = [sorted(tallies)[at] for at in evenly(len(tallies), EVALUATIONS)]
    places = {iteration: set(evenly(tallies[iteration]["answers"], CONVERSATIONS)) for iteration in chosen}
    found: dict[Conversation, dict[int, Logged]] = {}
    seen: Counter[int] = Counter()
    for line in read(path / FILE, places):
        if seen[line.iteration] in places[line.iteration]:
            one = line.answer
            conversation = (one.row, one.question, one.prompt, one.reference)
            found.setdefault(conversation, {})[chosen.index(line.iteration)] = line
        seen[line.iteration] += 1
    newest = len(chosen) - 1

    def by_row(item: tuple[Conversation, Mapping[int, Logged]]) -> tuple[bool, int]:
        conversation, lines = item
        return newest not in lines, conversation[0]

    evaluations = [
        {"at": str(at), "text": _title(iteration, tallies[iteration]), "is_newest": at == newest}
        for at, iteration in enumerate(chosen)
    ]
    return {
        "left_out": _left_out(tallies, places),
        "evaluations": evaluations,
        "choices": evaluations[::-1],
        "conversations": [
            {
                "is_hidden": newest not in lines,
                "rest": f"{len(found) - OPEN:,} more conversations" if number == OPEN else "",
                "cells": _cells(conversation, lines, newest),
            }
            for number, (conversation, lines) in enumerate(sorted(found.items(), key=by_row))
        ],
        "has_rest": len(found) > OPEN,
        "has_choice": len(chosen) > 1,
    }


def evenly(count: int, most: int) -> list[int]:
    """Places in `count` things, at most `most`: the first, the last, and evenly between."""
    return list(range(count)) if count <= most else [at * (count - 1) // (most - 1) for at in range(most)]


def _counted(line: Logged) -> Counter[str]:
    is_cut = line.answer.finish_reason == "length"
    return Counter(answers=1, right=line.is_match is True, wrong=line.is_match is False, cut=is_cut)


def _title(iteration: int, tally: Mapping[str, int]) -> str:
    count = tally["answers"]
    counts = {name: tally[name] for name in ("right", "wrong") if tally["right"] + tally["wrong"]} or {"answers": count}
    counts |= {"cut": tally["cut"]} if tally["cut"] else {}
    return f"iteration {iteration:,}: " + ", ".join(f"{number:,} {name}" for name, number in counts.items())


def _left_out(tallies: Mapping[int, Mapping[str, int]], places: Mapping[int, set[int]]) -> str:
    """What the page does not show; nothing if it shows all."""
    whole = sum(tally["answers"] for tally in tallies.values())
    left = whole - sum(map(len, places.values()))
    if not left:
        return ""
    most = max(tally["answers"] for tally in tallies.values())
    shown = f"{max(map(len, places.values())):,} of {most:,} conversations" if most > CONVERSATIONS else ""
    some = f"{len(places):,} of {len(tallies):,} evaluations" if len(tallies) > len(places) else ""
    return f"Shown are {' at '.join(filter(None, (shown, some)))}; {FILE} holds {left:,} more answers."


def _cells(conversation: Conversation, lines: Mapping[int, Logged], newest: int) -> list[dict[str, Any]]:
    """What stands side by side: question, reference, and the answers, of which one is seen at a time."""
    row, question, prompt, reference = conversation
    return [
        {**_cell("Question", question), "note": f"row {row:,}", "prompt": [_text(prompt)]},
        _cell("Reference", reference),
        *(_answer(at, line, is_newest=at == newest) for at, line in sorted(lines.items())),
    ]


def _answer(at: int, line: Logged, *, is_newest: bool) -> dict[str, Any]:
    kind, verdict = VERDICTS[line.is_match] if line.is_compared else ("plain", "")
    tokens = f"{line.answer.tokens:,} {'token' if line.answer.tokens == 1 else 'tokens'}"
    is_cut = line.answer.finish_reason == "length"
    return {
        **_cell("Answer", line.answer.answer),
        "at": str(at),
        "kind": f"answer {kind}",
        "verdict": verdict,
        "cut": f"✂ cut at {tokens}" if is_cut else "",
        "note": "" if is_cut else tokens,
        "is_hidden": not is_newest,
    }


def _cell(name: str, text: str) -> dict[str, Any]:
    empty = {"at": "", "kind": "", "verdict": "", "cut": "", "note": "", "prompt": [], "is_hidden": False}
    return {"name": name, **empty, **_text(text)}


def _text(text: str) -> dict[str, Any]:
    """`text` keeps its breaks; whatever else cannot be seen is spelled out."""
    lines, more = text[:LONGEST].split("\n"), len(text) - LONGEST
    return {
        "text": "\n".join(map(visible, lines)),
        "is_high": len(text) > HIGH or len(lines) > LINES,
        "more": f"{more:,} more characters are in {FILE}" if more > 0 else "",
    }
