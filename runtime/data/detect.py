"""The format of rows: found out where the recipe leaves it to them, and named where they plainly have another one.

Rows of another format than the recipe says are reported with what to write, and never read as such.

Only conversations are recognised. A row with nothing but a text is no evidence: it may lack its conversation.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from ..errors import UserError
from .reader import Line, read_lines
from .rows import Row, RowError
from .settings import Columns, Format, Source
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


def note_other_format(advice: str, tally: Tally) -> None:
    """Count a row that would be read with `advice`."""
    # Whether there are two kinds is all that is asked, and column names may be endless.
    if advice in tally.others or len(tally.others) < 2:
        tally.others[advice] += 1


def refuse_other_format(tally: Tally, source: Source) -> None:
    """UserError if all rows up to now, one at least, have one other format."""
    if len(tally.others) == 1 and tally.others.total() == tally.rows:
        (advice,) = tally.others
        raise UserError(
            f"`{source.path}` has no rows of the format {source.format}, which the recipe says "
            f"(rows read: {tally.rows:,}); nothing was stored",
            f"they would be read with {advice}",
        )


def detected(source: Source) -> Source:
    """`source` with the format that its first rows have, and the columns; those that the recipe names come first.

    UserError if none of the first ENOUGH rows is of a known format, or can be read at all.
    """
    first: Row | None = None
    broken: Line | None = None
    for line in islice(read_lines(source.path, sha256=None), ENOUGH):
        if isinstance(line.row, RowError):
            broken = line if broken is None else broken
            continue
        first = line.row if first is None else first
        for format, names in [*_named(line.row, source.columns), *_fitting(line.row)]:
            stated = {role: name for role, name in asdict(source.columns).items() if name != getattr(Columns(), role)}
            return replace(source, format=format, columns=Columns(**{**names, **stated}))
    if first is None:
        raise _unread(source, broken)
    shown = ", ".join(f"`{name}`" for name in first) if isinstance(first, dict) else "no columns"
    raise UserError(
        f"`{source.key}`: no format is known for the rows of `{source.path}`; the first one has {shown}",
        "say how they are read: `data.format`, and `data.columns` for the names of the columns",
    )


def _unread(source: Source, broken: Line | None) -> UserError:
    """Of a file that has no rows, or none that is one."""
    if broken is None or not isinstance(broken.row, RowError):
        return UserError(f"`{source.key}`: `{source.path}` holds no rows")
    return UserError(
        f"`{source.key}`: none of the first rows of `{source.path}` can be read\n"
        f"{broken.file}:{broken.number}: {broken.row.code} {broken.row.message}",
        "mend them, or name another file",
    )


def _named(row: Row, columns: Columns) -> Iterator[tuple[Format, dict[str, str]]]:
    """Formats whose columns the recipe gives names of their own, all of which `row` has."""
    stated = {role for role, name in asdict(columns).items() if name != getattr(Columns(), role)}
    needed: tuple[tuple[Format, tuple[str, ...]], ...] = (
        ("messages", ("messages",)),
        ("sharegpt", ("conversations",)),
        ("prompt_completion", ("prompt", "completion")),
        ("alpaca", ("instruction", "output")),
    )
    for format, roles in needed:
        if stated.intersection(roles) and isinstance(row, dict) and all(getattr(columns, r) in row for r in roles):
            yield format, {}


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
