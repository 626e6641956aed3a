"""A difference in words: for a terminal, for a pull request, for a program. One function per format, in `FORMATS`."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .built import Entry, origin_words
from .diff import Change, Difference

_RED, _GREEN, _CYAN, _BOLD = "31", "32", "36", "1"
_LINE_COLOURS = {"-": _RED, "+": _GREEN, "@": _CYAN}


def diff_text(found: Difference, colour: bool) -> str:
    """Values as `key: old -> new` with their reasons, then unified diffs; empty if nothing differs."""
    lines = []
    for change in found.changes:
        lines.append(_paint(change.label, _BOLD, colour))
        for sign, entry in (("-", change.old), ("+", change.new)):
            if entry:
                text = f"  {sign} {_value(entry)}  ({_reason(entry)})"
                lines.append(_paint(text, _LINE_COLOURS[sign], colour))
    blocks = ["".join(f"{line}\n" for line in lines)] if lines else []
    for text in found.texts.values():
        head, body = text.splitlines()[:2], text.splitlines()[2:]
        painted = [_paint(line, _BOLD, colour) for line in head]
        painted += [_paint(line, _LINE_COLOURS.get(line[:1], ""), colour) for line in body]
        blocks.append("".join(f"{line}\n" for line in painted))
    return "\n".join(blocks)


def diff_json(found: Difference, _colour: bool) -> str:
    """Changes by their JSON pointer into plan.json, and texts by artifact."""
    document = {
        "old": found.old,
        "new": found.new,
        "changes": {change.pointer: _change_json(change) for change in found.changes},
        "artifacts": found.texts,
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def diff_markdown(found: Difference, _colour: bool) -> str:
    """A table of values and folded diffs, in the Markdown of GitHub and GitLab."""
    return "\n".join(_markdown(found)) + "\n"


FORMATS: Mapping[str, Callable[[Difference, bool], str]] = {
    "text": diff_text,
    "json": diff_json,
    "markdown": diff_markdown,
}


def _markdown(found: Difference) -> Iterator[str]:
    if not found:
        yield f"`{found.old}` and `{found.new}` compile to the same files."
        return
    if found.changes:
        yield f"| value | `{found.old}` | `{found.new}` |"
        yield "|---|---|---|"
        for change in found.changes:
            yield f"| {_code(change.label)} | {_cell(change.old)} | {_cell(change.new)} |"
    for path, text in found.texts.items():
        # A fence must be longer than any run of backticks inside it.
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        yield from ("", f"<details><summary>{path}</summary>", "", f"{fence}diff", text.rstrip("\n"), fence)
        yield from ("", "</details>")


def _cell(entry: Entry | None) -> str:
    return f"{_code(_value(entry))}<br>{_plain(_reason(entry))}" if entry else ""


def _code(text: str) -> str:
    """Text as code in a table's cell: GitHub ends a cell at a bar even there."""
    fence = "``" if "`" in text else "`"
    blank = " " if fence == "``" else ""
    return f"{fence}{blank}{text}{blank}{fence}".replace("|", "\\|")


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


def _value(entry: Entry) -> str:
    return json.dumps(entry.value, ensure_ascii=False)


def _reason(entry: Entry) -> str:
    if entry.origin["from"] == "key":
        return str(entry.origin["key"])
    if entry.origin["from"] == "sftc":
        return f"sftc: {entry.origin['reason']}" if "reason" in entry.origin else "sftc"
    return origin_words(entry.origin, entry.place)


def _change_json(change: Change) -> dict[str, Any]:
    return {"old": _entry_json(change.old), "new": _entry_json(change.new)}


def _entry_json(entry: Entry | None) -> dict[str, Any] | None:
    return None if entry is None else {"value": entry.value, "origin": dict(entry.origin), "place": entry.place}


def _paint(text: str, colour_code: str, colour: bool) -> str:
    return f"\x1b[{colour_code}m{text}\x1b[0m" if colour and colour_code else text
