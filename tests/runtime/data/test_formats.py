"""Rows to conversations."""

from typing import Any

import pytest

from sftc.runtime.data.formats import Conversation, read_conversation, read_text
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.settings import Columns

ASK = {"role": "user", "content": "Why?"}


def messages(*rows: Any, **row: Any) -> Conversation:
    return read_conversation({"messages": list(rows), **row}, "messages", Columns())


def test_prompt_and_completion_with_the_recipes_columns() -> None:
    columns = Columns(prompt="question", completion="answer", system="rules")
    row = {"question": "Why?", "answer": "So.", "rules": "Be brief."}
    read = read_conversation(row, "prompt_completion", columns)
    assert [(m["role"], m["content"]) for m in read.messages] == [
        ("system", "Be brief."),
        ("user", "Why?"),
        ("assistant", "So."),
    ]
    assert len(read_conversation({**row, "rules": None}, "prompt_completion", columns).messages) == 2


def test_tool_calls_take_one_shape() -> None:
    bare = {"name": "f", "arguments": {"a": 1}}
    nested = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    read = messages(ASK, {"role": "assistant", "content": None, "tool_calls": [bare, nested]})
    calls = read.messages[1]["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "f", "arguments": {"a": 1}}] * 2
    assert calls[1]["id"] == "x"
    assert "content" not in read.messages[1]


def test_marks_leave_the_message() -> None:
    read = messages(ASK, {"role": "assistant", "content": "So.", "weight": 1}, {**ASK, "train": False})
    assert read.train == (None, True, False)
    assert not {"weight", "train"} & {key for message in read.messages for key in message}


def test_reasoning_goes_by_every_name() -> None:
    for key in ("reasoning_content", "reasoning", "thinking"):
        (message,) = messages({"role": "assistant", "content": "So.", key: "Hm."}).messages
        assert message["reasoning_content"] == message["thinking"] == "Hm."


def test_one_text_part_is_text_and_tools_may_be_json() -> None:
    read = messages({"role": "user", "content": [{"type": "text", "text": "Why?"}]}, tools='[{"name": "f"}]')
    assert read.messages[0]["content"] == "Why?"
    assert read.tools == [{"name": "f"}]
    assert messages(ASK, tools=[]).tools is None


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        ({"question": "Why?", "id": 3}, "no-column", "`question`, `id`"),
        ({}, "no-column", "no column at all"),
        ({"messages": "Why?"}, "wrong-type", "a string, not an array"),
        ({"messages": []}, "no-messages", "empty"),
        ({"messages": ["Why?"]}, "bad-message", "message 1 is a string"),
        ({"messages": [ASK, {"content": "So."}]}, "bad-role", "message 2 has no `role`"),
        ({"messages": [{"role": "human", "content": "Why?"}]}, "bad-role", '"human"'),
        ({"messages": [{"role": "user", "content": None}]}, "no-content", "message 1 (user)"),
        ({"messages": [{"role": "user", "content": 3}]}, "bad-content", "a number"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "bad-content", "image"),
        ({"messages": [{"role": "assistant", "content": "x", "reasoning": 1}]}, "bad-message", "`reasoning`"),
        ({"messages": [{"role": "user", "tool_calls": [{"name": "f"}]}]}, "bad-tool-call", "role is user"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"name": ""}]}]}, "bad-tool-call", "names no function"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]},
            "bad-tool-call",
            "JSON",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "3"}]}]},
            "bad-tool-call",
            "object",
        ),
        ({"messages": [{**ASK, "train": "no"}]}, "bad-mark", "`train`"),
        ({"messages": [{**ASK, "train": True, "weight": 0}]}, "bad-mark", "contradict"),
        ({"messages": [ASK], "tools": {"name": "f"}}, "bad-tools", "array"),
    ],
)
def test_bad_rows_say_where_and_what(row: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(RowError) as refusal:
        read_conversation(row, "messages", Columns())
    assert refusal.value.code == code
    assert words in refusal.value.message


def test_plain_text() -> None:
    assert read_text({"body": "Once."}, Columns(text="body")) == "Once."
    with pytest.raises(RowError, match="empty"):
        read_text({"text": ""}, Columns())
