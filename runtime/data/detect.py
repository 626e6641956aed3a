"""Rows that plainly have another format than the recipe says: named, with what to write, and never read as such.

Only conversations are recognised. A row with nothing but a text is no evidence: it may lack its conversation.
"""

from collections.abc import Iterator
from typing import Any

from ..errors import UserError
from .rows import Row
from .settings import Columns, Format
from .tally import Tally

# What reading such a row as another format comes to.
SUSPICIOUS = frozenset(
    {"no-column", "wrong-type", "not-an-object", "bad-role", "bad-message", "bad-content", "no-content"}
)
# A file of which so many rows come first, all of one other format, is not read on.
ENOUGH = 100

# Names that question and answer commonly go by, the format's own first.
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("problem", "solution"),
    ("instruction", "response"),
    ("input", "output"),
)

# Lists of messages in columns so called are parts of a conversation, or alternatives.
PARTS = frozenset({"prompt", "completion", "chosen", "rejected", "history", "context"})


def other_format(row: Row, format: Format, columns: Columns) -> str | None:
    """The recipe lines that `row` could be read with; None if it is of no known format, or of the one given."""
    if isinstance(row, list) and row and not _kind_of_items(row):
        is_row = isinstance(row[0], dict) and next(_fitting(row[0]), None)
        return "a file name that ends in `.json`, as the line is an array of rows" if is_row else None
    for found, names in _fitting(row):
        lines = [] if found == format else [f"`data.format: {found}`"]
        lines += [
            f"`data.columns.{role}: {name}`"
            for role, name in names.items()
            if name != getattr(columns if found == format else Columns(), role)
        ]
        if format == "text":
            lines.insert(0, "`task.is_instruction_dataset: true` instead of `task.kind: pretrain`")
        return " and ".join(lines) or None
    return None


def note_other_format(advice: str, tally: Tally, format: Format) -> None:
    """Count a row that would be read with `advice`; UserError if it is row ENOUGH and all before it are like it."""
    # Whether there are two kinds is all that is asked, and column names may be endless.
    if advice in tally.others or len(tally.others) < 2:
        tally.others[advice] += 1
    if tally.rows == ENOUGH:
        refuse_other_format(tally, format)


def refuse_other_format(tally: Tally, format: Format) -> None:
    """UserError if all rows up to now, one at least, have one other format."""
    if len(tally.others) == 1 and tally.others.total() == tally.rows:
        (advice,) = tally.others
        raise UserError(
            f"`{tally.bad.file}` has no rows of the format {format}, which the recipe says "
            f"(rows read: {tally.rows:,}); nothing was stored",
            f"they would be read with {advice}",
        )


def _fitting(row: Row) -> Iterator[tuple[Format, dict[str, str]]]:
    """Formats that `row` fits, with the columns, by role."""
    if isinstance(row, list):
        if kind := _kind_of_items(row):
            yield kind, {}
        return
    lists = {name: kind for name, value in row.items() if (kind := _kind_of_items(value))}
    if len(lists) == 1 and lists.keys().isdisjoint(PARTS):
        ((name, kind),) = lists.items()
        yield kind, {"messages" if kind == "messages" else "conversations": name}
    strings = {name for name, value in row.items() if isinstance(value, str)}
    if {"instruction", "output"} <= strings:
        yield "alpaca", {}
    for prompt, completion in PAIRS:
        if {prompt, completion} <= strings:
            yield "prompt_completion", {"prompt": prompt, "completion": completion}


def _kind_of_items(items: Any) -> Format | None:
    """The format of a list of messages."""
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return None
    if all("from" in item and "value" in item for item in items):
        return "sharegpt"
    if all(isinstance(item.get("role"), str) and ("content" in item or "tool_calls" in item) for item in items):
        return "messages"
    return None
