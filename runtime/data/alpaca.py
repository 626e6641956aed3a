"""Alpaca's rows to messages.

As LLaMA-Factory reads them: the user says `instruction` and, on the next line, `input` if there is any; `history` holds
the turns before, as pairs of what was asked and answered. Stanford's own prompt ("### Instruction:") is not added: the
tokenizer's chat template says how a turn is written.
"""

from typing import Any

from .rows import RowError, column, json_type
from .settings import Columns


def to_messages(row: dict[str, Any], columns: Columns) -> list[dict[str, Any]]:
    """The messages of a row without its system message, or RowError."""
    messages = []
    history = columns.optional(row, "history", (list, type(None)), "an array of pairs or null")
    for number, pair in enumerate(history or [], start=1):
        match pair:
            case [str(ask), str(reply)]:
                messages += _turn(ask, reply)
            case _:
                held = f"an array of {len(pair)}" if isinstance(pair, list) else json_type(pair)
                told = f"turn {number} of `{columns.history}` is {held}, not a pair of strings"
                raise RowError("bad-message", told)
    instruction = column(row, columns.instruction, str, "a string")
    given = columns.optional(row, "input", (str, type(None)), "a string or null")
    ask = "\n".join(part for part in (instruction, given) if part)
    if not ask:
        raise RowError("no-content", f"columns `{columns.instruction}` and `{columns.input}` are empty")
    return messages + _turn(ask, column(row, columns.output, str, "a string"))


def _turn(ask: str, reply: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
