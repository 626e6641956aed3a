"""ShareGPT's and Alpaca's rows to conversations."""

from typing import Any

import pytest

from sftc.runtime.data.formats import Conversation, read_conversation
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.settings import Columns, Format

ASK = {"from": "human", "value": "Why?"}
TASK = {"instruction": "Add.", "output": "3"}


def sharegpt(*items: Any, **row: Any) -> Conversation:
    return read_conversation({"conversations": list(items), **row}, "sharegpt", Columns())


def said(read: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in read.messages]


@pytest.mark.parametrize(
    ("speaker", "role"),
    [
        ("system", "system"),
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("assistant", "assistant"),
        ("model", "assistant"),
        ("chatgpt", "assistant"),
        ("tool", "tool"),
        ("function", "tool"),
        ("observation", "tool"),
    ],
)
def test_speakers(speaker: str, role: str) -> None:
    assert said(sharegpt({"from": speaker, "value": "x"})) == [(role, "x")]
    assert said(sharegpt({"role": speaker, "content": "x"})) == [(role, "x")]


def test_items_keep_what_else_they_carry() -> None:
    read = sharegpt(ASK, {"from": "gpt", "value": "So.", "weight": 0, "reasoning": "Hm.", "role": None})
    assert read.train == (None, False)
    assert read.messages[1] == {
        "role": "assistant",
        "content": "So.",
        "reasoning": "Hm.",
        "reasoning_content": "Hm.",
        "thinking": "Hm.",
    }


def test_function_calls_are_tool_calls() -> None:
    call = '{"name": "add", "arguments": {"a": 1}}'
    items = ASK, {"from": "function_call", "value": call}, {"from": "observation", "value": "1"}
    read = sharegpt(*items, tools='[{"name": "add"}]')
    assert read.messages[1] == {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    }
    assert read.messages[2]["role"] == "tool"
    assert read.tools == [{"name": "add"}]
    (two,) = sharegpt({"from": "function_call", "value": f"[{call}, {call}]"}).messages
    assert len(two["tool_calls"]) == 2


def test_system_column_goes_first() -> None:
    assert said(sharegpt(ASK, system="Be brief.")) == [("system", "Be brief."), ("user", "Why?")]
    assert said(sharegpt(ASK, system="")) == said(sharegpt(ASK, system=None)) == [("user", "Why?")]


def test_bare_lists_are_conversations() -> None:
    assert said(read_conversation([ASK], "sharegpt", Columns())) == [("user", "Why?")]
    assert said(read_conversation([{"role": "user", "content": "Why?"}], "messages", Columns())) == [("user", "Why?")]


def test_alpaca() -> None:
    read = {name: said(read_conversation({**TASK, **more}, "alpaca", Columns())) for name, more in MORE.items()}
    turn = [("user", "Add."), ("assistant", "3")]
    assert read == {
        "plain": turn,
        "no input": turn,
        "null input": turn,
        "input": [("user", "Add.\n1 and 2"), ("assistant", "3")],
        "input alone": [("user", "1 and 2"), ("assistant", "3")],
        "system": [("system", "Be brief."), *turn],
        "history": [("user", "Hi"), ("assistant", "Ho"), ("user", "He"), ("assistant", "Ha"), *turn],
    }


MORE: dict[str, dict[str, Any]] = {
    "plain": {},
    "no input": {"input": ""},
    "null input": {"input": None, "history": None, "system": None},
    "input": {"input": "1 and 2"},
    "input alone": {"instruction": "", "input": "1 and 2"},
    "system": {"system": "Be brief."},
    "history": {"history": [["Hi", "Ho"], ["He", "Ha"]]},
}


def test_columns_that_the_recipe_names_must_be_there() -> None:
    for columns in (Columns(input="context"), Columns(history="turns"), Columns(system="rules")):
        with pytest.raises(RowError, match="no-column"):
            read_conversation(TASK, "alpaca", columns)
    with pytest.raises(RowError, match="there is no column `rules`"):
        read_conversation({"conversations": [ASK]}, "sharegpt", Columns(system="rules"))
    row = {"task": "Add.", "context": "1 and 2", "answer": "3"}
    named = Columns(instruction="task", input="context", output="answer")
    assert said(read_conversation(row, "alpaca", named)) == [("user", "Add.\n1 and 2"), ("assistant", "3")]


@pytest.mark.parametrize(
    ("format", "row", "code", "words"),
    [
        ("sharegpt", {"messages": [ASK]}, "no-column", "`conversations`"),
        ("sharegpt", {"conversations": "Why?"}, "wrong-type", "a string, not an array"),
        ("sharegpt", {"conversations": []}, "no-messages", "`conversations` is empty"),
        ("sharegpt", [], "no-messages", "the row is empty"),
        ("sharegpt", [ASK, "Why?"], "bad-message", "message 2 is a string"),
        ("sharegpt", [{"from": "bot", "value": "x"}], "bad-role", 'from "bot"'),
        ("sharegpt", [{"from": 1, "value": "x"}], "bad-role", "from 1"),
        ("sharegpt", [{"from": "gpt"}], "bad-message", "no `value`"),
        ("sharegpt", [{"value": "x"}], "bad-message", "no `from`"),
        ("sharegpt", [{"text": "x"}], "bad-message", "neither `from` and `value`"),
        ("sharegpt", [{**ASK, "content": "x"}], "bad-message", "`content` beside"),
        ("sharegpt", [{"from": "gpt", "value": 3}], "bad-content", "a number"),
        ("sharegpt", [{"from": "function_call", "value": "f()"}], "bad-tool-call", "no JSON"),
        ("sharegpt", [{"from": "function_call", "value": "3"}], "bad-tool-call", "names no function"),
        (
            "sharegpt",
            {"conversations": [{"from": "system", "value": "x"}], "system": "y"},
            "bad-message",
            "column has another",
        ),
        ("alpaca", [ASK], "not-an-object", "an array"),
        ("alpaca", {"instruction": "Add."}, "no-column", "`output`"),
        ("alpaca", {**TASK, "output": 3}, "wrong-type", "a number"),
        ("alpaca", {**TASK, "input": 3}, "wrong-type", "a string or null"),
        ("alpaca", {**TASK, "instruction": "", "input": ""}, "no-content", "are empty"),
        ("alpaca", {**TASK, "history": [["Hi"]]}, "bad-message", "turn 1 of `history` is an array of 1"),
        ("alpaca", {**TASK, "history": [["Hi", "Ho"], "He"]}, "bad-message", "turn 2 of `history` is a string"),
        ("alpaca", {**TASK, "history": [["Hi", None]]}, "bad-message", "not a pair of strings"),
        ("prompt_completion", [ASK], "not-an-object", "an array"),
        ("messages", [], "no-messages", "the row is empty"),
        ("messages", ["Why?"], "bad-message", "message 1 is a string"),
    ],
)
def test_bad_rows_say_where_and_what(format: Format, row: Any, code: str, words: str) -> None:
    with pytest.raises(RowError) as refusal:
        read_conversation(row, format, Columns())
    assert refusal.value.code == code
    assert words in refusal.value.message


def test_the_key_knows_the_columns_that_are_read() -> None:
    assert Columns().used_by("sharegpt") == {"conversations": "conversations", "system": "system"}
    assert Columns(system="rules", text="x").used_by("alpaca") == {
        "instruction": "instruction",
        "input": "input",
        "output": "output",
        "history": "history",
        "system": "rules",
    }
