"""Rows to conversations in the one shape that chat templates are given.

Shape: `role`, `content` (a string, or absent), `reasoning_content` (a string, when the row has one under any of its
usual names), `tool_calls` as `{"id"?, "type": "function", "function": {"name", "arguments": {...}}}`, and whatever else
a message carries, for templates that read it. Keys that are null are dropped, as Hugging Face's `apply_chat_template`
does. The marks of what to train (`train`, `loss`, `weight`) leave the message.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from .alpaca import to_messages
from .rows import Row, RowError, column, json_type
from .settings import Columns, Format
from .sharegpt import to_message

type Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
# One for all rows: making an encoder takes as long as encoding a row.
CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True)
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """`train[i]` is what the row says about message i: train on it, do not, or nothing."""

    messages: list[Message]
    train: tuple[bool | None, ...]
    tools: list[dict[str, Any]] | None = None

    def digest(self) -> int:
        """64 bits that stand for what is said, whatever the row's format and marks."""
        return digest_of(CANONICAL.encode([self.messages, self.tools]))


def digest_of(text: str) -> int:
    """64 bits that stand for `text`."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def read_conversation(row: Row, format: Format, columns: Columns) -> Conversation:
    """The conversation of a row in any format but `text`, or RowError."""
    tools = None
    match format:
        case "prompt_completion":
            row = _object(row)
            raw = [
                {"role": "user", "content": column(row, columns.prompt, str, "a string")},
                {"role": "assistant", "content": column(row, columns.completion, str, "a string")},
            ]
            if columns.system is not None:
                raw = _with_system(column(row, columns.system, (str, type(None)), "a string or null"), raw)
        case "alpaca":
            row = _object(row)
            raw = _with_system(
                columns.optional(row, "system", (str, type(None)), "a string or null"), to_messages(row, columns)
            )
        case "sharegpt":
            raw = [to_message(item, index) for index, item in enumerate(_items(row, columns.conversations))]
            if isinstance(row, dict):
                raw = _with_system(columns.optional(row, "system", (str, type(None)), "a string or null"), raw)
                tools = row.get("tools")
        case _:
            raw = _items(row, columns.messages)
            tools = row.get("tools") if isinstance(row, dict) else None
    read = [_message(message, index) for index, message in enumerate(raw)]
    return Conversation(
        messages=[message for message, _ in read], train=tuple(train for _, train in read), tools=_tools(tools)
    )


def read_text(row: Row, columns: Columns) -> str:
    """The text of a row in `text` format, or RowError."""
    text: str = column(_object(row), columns.text, str, "a string")
    if not text:
        raise RowError("no-text", f"column `{columns.text}` is empty")
    return text


def _object(row: Row) -> dict[str, Any]:
    if isinstance(row, list):
        raise RowError("not-an-object", "the row is an array, not an object with columns")
    return row


def _items(row: Row, name: str) -> list[Any]:
    """The messages of a row: those of its column `name`, or the row itself if it is a bare list."""
    items: list[Any] = row if isinstance(row, list) else column(row, name, list, "an array of messages")
    if not items:
        raise RowError("no-messages", "the row is empty" if isinstance(row, list) else f"column `{name}` is empty")
    return items


def _with_system(system: str | None, messages: list[Any]) -> list[Any]:
    if not system:
        return messages
    if messages[0]["role"] == "system":
        raise RowError("bad-message", "message 1 is a system message, and the row's column has another")
    return [{"role": "system", "content": system}, *messages]


def _message(raw: Any, index: int) -> tuple[Message, bool | None]:
    where = f"message {index + 1}"
    if not isinstance(raw, dict):
        raise RowError("bad-message", f"{where} is {json_type(raw)}, not an object")
    message = {key: value for key, value in raw.items() if value is not None}
    role = message.get("role")
    if role not in ROLES:
        said = "has no `role`" if role is None else f"has the role {json.dumps(role, ensure_ascii=False)}"
        raise RowError("bad-role", f"{where} {said}; roles are {', '.join(ROLES)}")
    if "content" in message:
        message["content"] = _content(message["content"], where)
    for key in REASONING_KEYS:
        if key in message:
            if not isinstance(message[key], str):
                raise RowError("bad-message", f"`{key}` of {where} is {json_type(message[key])}, not a string")
            # Templates read one name or the other; whichever the row uses, both are there.
            message = {"thinking": message[key], **message, "reasoning_content": message[key]}
            break
    calls = message.pop("tool_calls", None)
    if calls:
        if role != "assistant":
            raise RowError("bad-tool-call", f"{where} has `tool_calls`, but its role is {role}")
        message["tool_calls"] = _tool_calls(calls, where)
    elif "content" not in message:
        raise RowError("no-content", f"{where} ({role}) has neither content nor tool calls")
    return message, _train(message, where)


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        match content:
            case [{"type": "text", "text": str(text)}]:
                return text
        kinds = sorted({str(part.get("type")) if isinstance(part, dict) else json_type(part) for part in content})
        raise RowError("bad-content", f"content of {where} is a list of parts ({', '.join(kinds)}); one text is wanted")
    raise RowError("bad-content", f"content of {where} is {json_type(content)}, not a string")


def _tool_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise RowError("bad-tool-call", f"`tool_calls` of {where} is {json_type(calls)}, not an array")
    result = []
    for number, call in enumerate(calls, start=1):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
            raise RowError("bad-tool-call", f"tool call {number} of {where} names no function")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _json_or_error(arguments or "{}", f"arguments of tool call {number} of {where}")
        if not isinstance(arguments, dict):
            raise RowError(
                "bad-tool-call", f"arguments of tool call {number} of {where} are {json_type(arguments)}, not an object"
            )
        kept = {key: value for key, value in call.items() if key == "id" and value is not None}
        result.append({**kept, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return result


def _json_or_error(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("bad-tool-call", f"{what} are a string that is no JSON") from None


def _train(message: Message, where: str) -> bool | None:
    """Take the marks of what to train out of `message`: `train` or `loss`, booleans, or OpenAI's `weight`, 0 or 1."""
    marks = {}
    for key in ("train", "loss", "weight"):
        if key in message:
            value = message.pop(key)
            if not isinstance(value, bool) and not (key == "weight" and value in (0, 1)):
                wanted = "0 or 1" if key == "weight" else "true or false"
                raise RowError("bad-mark", f"`{key}` of {where} is {json.dumps(value)}, not {wanted}")
            marks[key] = bool(value)
    if len(set(marks.values())) > 1:
        raise RowError("bad-mark", f"{' and '.join(f'`{key}`' for key in marks)} of {where} contradict each other")
    return next(iter(marks.values()), None)


def _tools(tools: Any) -> list[dict[str, Any]] | None:
    if isinstance(tools, str):
        tools = _json_or_error(tools or "null", "`tools`")
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError("bad-tools", "`tools` is not an array of objects")
    return tools
