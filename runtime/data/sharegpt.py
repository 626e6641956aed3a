"""ShareGPT's items to messages: `from` and `value` for `role` and `content`, and the names that speakers go by.

The names are those of FastChat's and LLaMA-Factory's data. `function_call` is the latter's: an assistant's turn whose
value is the JSON text of one call, `{"name": ..., "arguments": {...}}`, or of an array of them. Items that have `role`
and `content` are taken too; whatever else an item carries goes with it.
"""

import json
from typing import Any

from .rows import RowError, json_type

SPEAKERS = {
    "system": "system",
    "developer": "developer",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def to_message(item: Any, index: int) -> dict[str, Any]:
    """The message that item `index` stands for, yet to be checked like any other; RowError if it is no item."""
    where = f"message {index + 1}"
    if not isinstance(item, dict):
        raise RowError("bad-message", f"{where} is {json_type(item)}, not an object")
    # Rows of parquet have every key that any item has, null where it does not say anything.
    message = {key: value for key, value in item.items() if value is not None}
    if "from" in message or "value" in message:
        if mixed := sorted({"role", "content"} & message.keys()):
            raise RowError("bad-message", f"{where} has `{mixed[0]}` beside `from` and `value`")
        missing = [key for key in ("from", "value") if key not in message]
        if missing:
            raise RowError("bad-message", f"{where} has no `{missing[0]}`")
        message["role"], message["content"] = message.pop("from"), message.pop("value")
    elif "role" not in message:
        raise RowError("bad-message", f"{where} has neither `from` and `value` nor `role` and `content`")
    speaker = message["role"]
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        said = json.dumps(speaker, ensure_ascii=False)
        raise RowError("bad-role", f"{where} is from {said}; known are {', '.join(SPEAKERS)}")
    message["role"] = SPEAKERS[speaker]
    if speaker == "function_call":
        message["tool_calls"] = _calls(message.pop("content", None), where)
    return message


def _calls(value: Any, where: str) -> list[Any]:
    try:
        calls = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise RowError("bad-tool-call", f"{where} is a function_call, and its value is no JSON") from None
    return calls if isinstance(calls, list) else [calls]
