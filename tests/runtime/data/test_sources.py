"""Several sources, rows held out by what they say, rows that are in two places, and formats that are found out."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data.dataset import PreparedData
from sftc.runtime.data.indexed import IndexedReader
from sftc.runtime.data.prepare import Prepared, prepare
from sftc.runtime.data.settings import Columns, DataSettings, Format, Source
from sftc.runtime.errors import UserError

type Settings = Callable[..., DataSettings]
type Rows = Callable[..., Path]
type Pair = Callable[[str, str], dict[str, Any]]


def source(
    path: Path, weight: float | None = None, format: Format = "messages", columns: Columns | None = None
) -> Source:
    return Source(
        path=str(path), key="data.sources[0].path", format=format, columns=columns or Columns(), weight=weight
    )


def tokens_of(prepared: Prepared, split: str = "train") -> list[list[int]]:
    reader = IndexedReader(prepared.store / f"{split}.tokens")
    return [reader[row].tolist() for row in range(len(reader))]


def words(count: int, seed: int = 0) -> list[str]:
    drawn = random.Random(seed)
    return ["".join(drawn.choices("abcdefgh", k=8)) for _ in range(count)]


def test_sources_come_one_after_the_other_each_as_it_is(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    one = write_rows("one.jsonl", [pair("a", "b"), b"{"])
    two = write_rows("two.jsonl", [{"question": "a", "reply": "b"}, {"question": "c", "reply": "d"}])
    named = Columns(prompt="question", completion="reply")
    chosen = settings(sources=(source(one), source(two, format="prompt_completion", columns=named)), on_bad_row="skip")
    prepared = prepare(replace(chosen, train_data_path=None))
    first, second, _ = tokens_of(prepared)
    assert first == second
    train = prepared.summary["splits"]["train"]
    assert (train["rows"], train["kept"], train["duplicates"], train["dropped"]) == (4, 3, 1, {"not-json": 1})
    assert [(part["rows"], part["kept"], part["dropped"]) for part in train["sources"]] == [
        (2, 1, {"not-json": 1}),
        (2, 2, {}),
    ]
    assert set(prepared.summary["rows"]) == {"train, source 1", "train, source 2"}
    with pytest.raises(UserError, match=rf"1 of 2 rows of `{one}` cannot be used\n{one}:2: not-json"):
        prepare(replace(chosen, train_data_path=None, on_bad_row="error"))


def test_a_weight_changes_the_order_and_not_what_is_stored(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    paths = [
        write_rows(name, [pair(word, word) for word in words(count, seed=count)])
        for name, count in (("a.jsonl", 30), ("b.jsonl", 6))
    ]
    alone = settings(sources=tuple(source(path) for path in paths), seq_length=128, packing_multiple=1)
    blend = replace(alone, sources=tuple(source(path, weight) for path, weight in zip(paths, (1, 3), strict=True)))
    other = replace(alone, sources=tuple(source(path, weight) for path, weight in zip(paths, (2, 1), strict=True)))
    prepared = prepare(blend)
    assert prepare(other).store == prepared.store != prepare(alone).store
    train = prepared.summary["splits"]["train"]
    assert [part["samples"] for part in train["sources"]] == [10, 2]
    plan = IndexedReader(prepared.store / "train.packs")
    assert all(
        (plan[pack] < 30).all() == (pack < 10) and (plan[pack] >= 30).all() == (pack >= 10) for pack in range(12)
    )
    samples = PreparedData.open(prepared.store).train(num_samples=1, seed=3, weights=(1.0, 3.0))
    taken = [samples.row_of(index) for index in range(120)]
    assert [sum(pack >= 10 for pack in taken[at : at + 12]) for at in range(0, 120, 12)] == [9] * 10
    # Nothing of a source is left out or preferred.
    assert all(abs(taken.count(pack) - 3) <= 1 for pack in range(10))
    assert all(abs(taken.count(pack) - 45) <= 1 for pack in (10, 11))
    with pytest.raises(UserError, match=r"`data.sources\[1\].weight` 0.001 is too small: of 12 samples"):
        PreparedData.open(prepared.store).train(num_samples=1, seed=3, weights=(1.0, 0.001))


def test_rows_are_held_out_by_what_they_say(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    rows = [pair(word, word[::-1]) for word in words(400)]
    write_rows("train.jsonl", rows)
    chosen = settings(valid_fraction=0.2)
    prepared = prepare(chosen)
    valid = tokens_of(prepared, "valid")
    assert 50 <= len(valid) <= 110
    assert len(valid) + prepared.rows("train") == 400
    assert not {tuple(row) for row in valid} & {tuple(row) for row in tokens_of(prepared)}
    assert any(f"valid: {len(valid)} of 400 rows are held out" in notice for notice in prepared.notices)
    # Further rows, another order, equal rows and another way of writing the same: nobody changes sides.
    flat = [{"prompt": row["messages"][0]["content"], "completion": row["messages"][1]["content"]} for row in rows]
    more = [{"prompt": word, "completion": word} for word in words(100, seed=1)]
    write_rows("train.jsonl", [*more, *reversed(flat), *flat])
    again = prepare(replace(chosen, format="prompt_completion"))
    held = {tuple(row) for row in tokens_of(again, "valid")}
    trained = {tuple(row) for row in tokens_of(again)}
    assert {tuple(row) for row in valid} <= held
    assert not held & trained
    assert again.summary["splits"]["valid"]["duplicates"] == len(valid)


def test_a_fraction_that_holds_out_nothing(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("a", "b"), pair("c", "d")])
    with pytest.raises(UserError, match=r"a `data.valid_fraction` of 1e-09 leaves no row of 2 for valid"):
        prepare(settings(valid_fraction=1e-9))


def test_a_training_row_that_is_a_validation_row(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    path = write_rows("train.jsonl", [pair("a", "b"), pair("c", "d"), pair("c", "d")])
    valid = write_rows("valid.jsonl", [pair("x", "y"), pair("c", "d")])
    chosen = settings(valid_data_path=valid)
    with pytest.raises(UserError) as refusal:
        prepare(chosen)
    assert refusal.value.message.startswith("2 of 3 training rows are validation rows too\n")
    assert [f"{path}:{line}: also-in-valid " in refusal.value.message for line in (1, 2, 3)] == [False, True, True]
    assert "`data.on_shared_rows`" in str(refusal.value.help)
    assert not list(chosen.store_path.glob("*/data.json"))
    dropped = prepare(replace(chosen, on_shared_rows="drop"))
    assert (dropped.rows("train"), dropped.rows("valid")) == (1, 2)
    assert dropped.summary["splits"]["train"]["dropped"] == {"also-in-valid": 2}
    kept = prepare(replace(chosen, on_shared_rows="keep"))
    assert (kept.rows("train"), kept.summary["train_rows_in_valid"]) == (3, 2)
    assert any(notice.startswith("WARNING: 2 of 3 training rows") for notice in kept.notices)


ITEMS = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    ("row", "format", "columns", "said"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages", {}, ""),
        ({"conversations": ITEMS}, "sharegpt", {}, ""),
        ({"dialog": ITEMS, "id": 1}, "sharegpt", {}, "conversations from `dialog`"),
        ({"question": "a", "answer": "b"}, "prompt_completion", {}, "prompt from `question`, completion from `answer`"),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca", {}, ""),
        ({"q": "a", "a": "b"}, "prompt_completion", {"prompt": "q", "completion": "a"}, "prompt from `q`"),
    ],
)
def test_a_format_is_found_out_and_said(
    settings: Settings, write_rows: Rows, row: dict[str, Any], format: Format, columns: dict[str, str], said: str
) -> None:
    path = write_rows("train.jsonl", [b"{", row, row])
    heard: list[str] = []
    chosen = settings(format="auto", columns=Columns(**columns), on_bad_row="skip")
    prepared = prepare(chosen, notice=heard.append)
    assert prepared.rows("train") == 2
    (line,) = heard
    assert line.startswith(f"data.train_data_path: the rows are of the format {format}")
    assert said in line
    found = prepared.summary["settings"]["sources"]["train"]
    assert found["format"] == format
    # It is the same as if the recipe had said so.
    names = {role: name for role, name in found["columns"].items() if name is not None}
    written = replace(chosen, format=format, columns=Columns(**names))
    assert not prepare(written).is_new
    assert path.exists()


def test_a_format_that_nobody_knows(settings: Settings, write_rows: Rows) -> None:
    write_rows("train.jsonl", [{"body": "a"}, {"body": "b"}])
    with pytest.raises(UserError, match=r"no format is known for the rows of `.*`; the first one has `body`"):
        prepare(settings(format="auto"))


@pytest.mark.parametrize("format", ["auto", "messages"])
@pytest.mark.parametrize(("rows", "said"), [([], "` holds no rows"), ([b"{", b"["], "train.jsonl:1: not-json ")])
def test_a_file_without_rows_is_no_matter_of_their_format(
    settings: Settings, write_rows: Rows, rows: list[Any], said: str, format: str
) -> None:
    write_rows("train.jsonl", rows)
    with pytest.raises(UserError) as caught:
        prepare(settings(format=format))
    assert said in caught.value.message
    assert "data.format" not in str(caught.value.help)


def test_rows_of_two_formats_are_told_with_their_lines(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    path = write_rows("train.jsonl", [pair("a", "b"), {"conversations": ITEMS}])
    with pytest.raises(UserError, match=rf"{path}:2: other-format .* `data.format: sharegpt`"):
        prepare(settings(format="auto"))


def test_many_rows_in_processes_are_what_they_are_in_one(
    settings: Settings, write_rows: Rows, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = [pair(word, word * 3) for word in words(700)]
    rows[300], rows[650] = b"{", pair("x" * 900, "y")
    write_rows("train.jsonl", rows)
    chosen = settings(on_bad_row="skip", on_overlong="drop", seq_length=200)
    alone = prepare(replace(chosen, store_path=chosen.store_path / "alone"))
    monkeypatch.setattr("sftc.runtime.data.workers.MANY_BYTES", 1)
    monkeypatch.setattr("sftc.runtime.data.workers.BATCH_BYTES", 10_000)
    together = prepare(replace(chosen, store_path=chosen.store_path / "together"))
    assert together.store.name == alone.store.name
    for path in alone.store.iterdir():
        assert (together.store / path.name).read_bytes() == path.read_bytes(), path.name
    assert alone.summary["splits"]["train"]["dropped"] == {"not-json": 1, "overlong": 1}
    with pytest.raises(UserError, match=r"train\.jsonl:301: not-json"):
        prepare(replace(chosen, on_bad_row="error"))
    bad = [{"conversations": ITEMS}] * 200
    write_rows("train.jsonl", bad)
    with pytest.raises(UserError, match=r"they would be read with `data\.format: sharegpt`"):
        prepare(chosen)


def test_the_page_and_the_table_tell_of_each_source(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    from sftc.runtime.data import stats
    from sftc.runtime.data.figures import measure

    paths = [write_rows(name, [pair("a", name)] * 2) for name in ("one.jsonl", "two.jsonl")]
    prepared = prepare(settings(sources=tuple(source(path, 1.0) for path in paths)))
    figures = measure(prepared.store, ["train"])
    found = stats.statistics("name", prepared.summary, figures)
    assert [part["kept"] for part in found["splits"]["train"]["sources"]] == [2, 2]
    assert json.dumps(found)
    table = stats.table(found)
    assert "source 1, samples" in table
