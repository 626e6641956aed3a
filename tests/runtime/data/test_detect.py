"""Rows of another format than the recipe says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data import workers
from sftc.runtime.data.detect import other_format
from sftc.runtime.data.prepare import prepare
from sftc.runtime.data.settings import Columns, DataSettings, Format
from sftc.runtime.errors import UserError

type Settings = Callable[..., DataSettings]
type Rows = Callable[..., Path]
type Pair = Callable[[str, str], dict[str, Any]]

MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
ITEMS = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    ("format", "columns", "row", "advice"),
    [
        ("messages", Columns(), {"id": 1, "conversations": ITEMS}, "`data.format: sharegpt`"),
        (
            "messages",
            Columns(),
            {"messages": ITEMS},
            "`data.format: sharegpt` and `data.columns.conversations: messages`",
        ),
        ("messages", Columns(), ITEMS, "`data.format: sharegpt`"),
        ("messages", Columns(), {"chat": MESSAGES}, "`data.columns.messages: chat`"),
        ("messages", Columns(messages="chat"), {"messages": MESSAGES}, "`data.columns.messages: messages`"),
        ("messages", Columns(), {"instruction": "a", "input": "", "output": "b"}, "`data.format: alpaca`"),
        ("messages", Columns(), {"prompt": "a", "completion": "b"}, "`data.format: prompt_completion`"),
        (
            "messages",
            Columns(),
            {"question": "a", "answer": "b"},
            "`data.format: prompt_completion` and `data.columns.prompt: question` "
            "and `data.columns.completion: answer`",
        ),
        ("messages", Columns(), [{"prompt": "a", "completion": "b"}], "a file name that ends in `.json`"),
        ("prompt_completion", Columns(), {"prompt": "a", "response": "b"}, "`data.columns.completion: response`"),
        ("sharegpt", Columns(), {"messages": MESSAGES}, "`data.format: messages`"),
        ("alpaca", Columns(), {"messages": MESSAGES}, "`data.format: messages`"),
        ("text", Columns(), {"messages": MESSAGES}, "`task.is_instruction_dataset: true` instead of"),
    ],
)
def test_plain_cases(format: Format, columns: Columns, row: Any, advice: str) -> None:
    said = other_format(row, format, columns)
    assert said is not None
    assert said.startswith(advice)
    if format != "text" and not advice.startswith("a file"):
        assert said == advice


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a"},
        {"messages": "a", "id": 1},
        {"messages": [{"role": "narrator", "content": "a"}]},
        {"messages": [{**MESSAGES[0], "train": 3}], "prompt": "a", "completion": "b"},
        {"prompt": MESSAGES, "completion": MESSAGES},
        {"prompt": MESSAGES, "completion": "b"},
        {"one": MESSAGES, "two": ITEMS},
        {"parts": [{"role": "user"}], "prompt": "a"},
        {"names": ["a"], "prompt": 3, "completion": "b"},
        ["a"],
        [{"a": 1}],
        [],
        {},
    ],
)
def test_what_is_not_plain_is_left_alone(row: Any) -> None:
    assert other_format(row, "messages", Columns()) is None


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_file_of_another_format(settings: Settings, write_rows: Rows, policy: str) -> None:
    path = write_rows("train.jsonl", [{"conversations": ITEMS}] * 3)
    with pytest.raises(UserError) as refusal:
        prepare(settings(on_bad_row=policy))
    assert refusal.value.message == (
        f"`{path}` has no rows of the format messages, which the recipe says (rows read: 3); nothing was stored"
    )
    assert refusal.value.help == "they would be read with `data.format: sharegpt`"
    assert prepare(settings(format="sharegpt")).rows("train") == 3


def test_large_file_of_another_format_is_not_read_to_its_end(
    settings: Settings, write_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ENOUGH", 2)
    write_rows("train.jsonl", [{"conversations": ITEMS}] * 3)
    with pytest.raises(UserError, match=r"rows read: 2"):
        prepare(settings())


def test_two_other_formats_are_reported_row_by_row(settings: Settings, write_rows: Rows) -> None:
    write_rows("train.jsonl", [{"conversations": ITEMS}, {"instruction": "a", "output": "b"}, {"chat": MESSAGES}])
    with pytest.raises(UserError, match="other-format 3"):
        prepare(settings())


def test_two_formats_in_one_file(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    rows = [pair("a", "b"), {"conversations": ITEMS}, {"instruction": "a", "output": "b"}, pair("c", "d")]
    path = write_rows("train.jsonl", rows)
    with pytest.raises(UserError) as refusal:
        prepare(settings())
    for line, format in ((2, "sharegpt"), (3, "alpaca")):
        told = f"{path}:{line}: other-format the row is not of the format messages, but would be read with"
        assert f"{told} `data.format: {format}`" in refusal.value.message
    assert "by reason: other-format 2" in refusal.value.message
    skipped = prepare(settings(on_bad_row="skip"))
    assert skipped.summary["splits"]["train"]["dropped"] == {"other-format": 2}
    assert skipped.rows("train") == 2


def test_one_row_of_another_format_does_not_condemn_the_file(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    rows = [{"conversations": ITEMS}, {"conversations": ITEMS}, pair("a", "b")]
    write_rows("train.jsonl", rows)
    assert prepare(settings(on_bad_row="skip")).rows("train") == 1
    write_rows("train.jsonl", [*rows[:2], b"{"])
    with pytest.raises(UserError, match="other-format 2"):
        prepare(settings())


def test_advice_is_followed_by_success(settings: Settings, write_rows: Rows) -> None:
    write_rows("train.jsonl", [{"instruction": "a", "output": "b"}])
    assert prepare(settings(format="alpaca")).rows("train") == 1
    write_rows("train.jsonl", [{"question": "a", "answer": "b"}])
    named = Columns(prompt="question", completion="answer")
    assert prepare(settings(format="prompt_completion", columns=named)).rows("train") == 1
    write_rows("train.jsonl", [{"messages": ITEMS}])
    assert prepare(settings(format="sharegpt", columns=Columns(conversations="messages"))).rows("train") == 1
