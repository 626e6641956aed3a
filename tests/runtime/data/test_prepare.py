"""Preparation as a whole: what is stored, what is refused, what survives a crash."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data.indexed import IndexedReader
from sftc.runtime.data.prepare import Prepared, prepare, prepare_run
from sftc.runtime.data.settings import Columns, DataSettings
from sftc.runtime.data.store import locked, new_directory, write_summary
from sftc.runtime.data.tokens import TextTokenizer
from sftc.runtime.errors import UserError

type Settings = Callable[..., DataSettings]
type Rows = Callable[..., Path]
type Pair = Callable[[str, str], dict[str, Any]]


def stored(prepared: Prepared, split: str = "train") -> list[tuple[list[int], list[int]]]:
    tokens, masks = (IndexedReader(prepared.store / f"{split}.{kind}") for kind in ("tokens", "mask"))
    return [(tokens[index].tolist(), masks[index].tolist()) for index in range(len(tokens))]


def in_store(settings: DataSettings) -> list[str]:
    return sorted(path.name for path in settings.store_path.glob("*") if path.suffix != ".lock")


def test_tokens_and_masks(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("a", "b"), pair("cc", "dd")])
    prepared = prepare(settings())
    (tokens, mask), _ = stored(prepared)
    # <|im_start|> u s e r \n a <|im_end|> \n <|im_start|> a s s i s t a n t \n b <|im_end|> \n
    assert len(tokens) == 23
    assert mask == [0] * 20 + [1, 1, 0]
    train = prepared.summary["splits"]["train"]
    assert (train["rows"], train["kept"], train["tokens"], train["supervised_tokens"]) == (2, 2, 48, 5)
    assert train["proven_by"] == {"marks": 2}


def test_second_time_is_found(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    first, second = prepare(settings()), prepare(settings())
    assert (first.is_new, second.is_new) == (True, False)
    assert first.store == second.store
    assert first.summary == second.summary
    # Where the rows lie decides nothing, what they are does.
    moved = write_rows("moved.jsonl", [pair("a", "b")])
    assert prepare(settings(train_data_path=moved)).store == first.store


@pytest.mark.parametrize(
    "changed",
    [{"seq_length": 65}, {"loss_on": "all"}, {"on_overlong": "drop"}, {"on_bad_row": "skip"}],
    ids=lambda changed: next(iter(changed)),
)
def test_settings_are_part_of_the_content(
    settings: Settings, write_rows: Rows, pair: Pair, changed: dict[str, Any]
) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    plain = settings()
    assert prepare(plain).store != prepare(replace(plain, **changed)).store


def test_rows_tokenizer_and_template_are_part_of_the_content(
    settings: Settings, write_rows: Rows, pair: Pair, make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    plain = settings()
    stores = {prepare(plain).store}
    template = tmp_path / "chat_template.jinja"
    template.write_text("{% for m in messages %}{{ m.role }} {{ m.content }}</s>{% endfor %}")
    stores.add(prepare(replace(plain, chat_template_path=template)).store)
    make_tokenizer(merges=(("a", "b"),))
    stores.add(prepare(plain).store)
    write_rows("train.jsonl", [pair("a", "c")])
    stores.add(prepare(plain).store)
    stores.add(prepare(replace(plain, valid_data_path=plain.train_data_path, on_shared_rows="keep")).store)
    assert len(stores) == 5


def test_bad_rows_fail_with_their_place_and_store_nothing(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    named = {"messages": [{"role": "user", "content": "a", "name": "<|im_end|>"}, *pair("a", "d")["messages"][1:]]}
    write_rows("train.jsonl", [pair("a", "b"), b"{", {"text": "c"}, named])
    chosen = settings()
    with pytest.raises(UserError) as refusal:
        prepare(chosen)
    message = refusal.value.message
    assert message.startswith(f"3 of 4 rows of `{chosen.train_data_path}` cannot be used")
    for line, code in ((2, "not-json"), (3, "no-column"), (4, "special-token")):
        assert f"{chosen.train_data_path}:{line}: {code} " in message
    assert "nothing was stored" in message
    assert "on_bad_row: skip" in str(refusal.value.help)
    assert in_store(chosen) == []


def test_special_tokens_that_a_user_types_are_stored_as_text(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("<|im_end|>", "b"), pair("c", "d<s>")])
    prepared = prepare(settings(seq_length=200))
    tokenizer = TextTokenizer.load(settings().tokenizer_path, 300)
    rows = IndexedReader(prepared.store / "train.tokens")
    for row in range(2):
        ids = rows[row].tolist()
        assert (ids.count(tokenizer.eos_id), ids.count(tokenizer.bos_id)) == (2, 0)


def test_bad_rows_are_skipped_and_counted(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("a", "b"), b"{", {"text": "c"}, {"text": "d"}])
    prepared = prepare(settings(on_bad_row="skip"))
    train = prepared.summary["splits"]["train"]
    assert (train["rows"], train["kept"], train["dropped"]) == (4, 1, {"no-column": 2, "not-json": 1})
    assert prepared.notices == ("train: 3 of 4 rows are left out: no-column 2, not-json 1",)
    assert len(stored(prepared)) == 1


def test_overlong_rows(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    """23 tokens are 22 positions; the long row has 43 tokens, the last 21 of which are its answer and what follows."""
    write_rows("train.jsonl", [pair("a", "b"), pair("aa", "b" * 20)])
    with pytest.raises(UserError) as refusal:
        prepare(settings(seq_length=22, on_bad_row="skip"))
    assert "train.jsonl:2: overlong 43 tokens make 42 positions; seq_length is 22" in refusal.value.message
    assert "`train.seq_length` to 42 or more" in str(refusal.value.help)
    dropped = prepare(settings(seq_length=22, on_overlong="drop"))
    assert dropped.summary["splits"]["train"]["dropped"] == {"overlong": 1}
    whole, left, right = (
        stored(prepare(settings(seq_length=length, on_overlong=policy)))[1]
        for length, policy in ((42, "error"), (22, "truncate_left"), (22, "truncate_right"))
    )
    assert left == (whole[0][-23:], whole[1][-23:])
    assert right == (whole[0][:23], whole[1][:23])
    cut = prepare(settings(seq_length=22, on_overlong="truncate_left"))
    assert (cut.summary["splits"]["train"]["truncated"], cut.summary["splits"]["train"]["tokens_cut"]) == (1, 20)
    assert "20 tokens are lost" in cut.notices[0]


def test_truncation_that_leaves_nothing_to_train_on(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("a" * 40, "b"), pair("a", "b")])
    with pytest.raises(UserError, match=r"train\.jsonl:1: nothing-to-train after truncate_right by 39"):
        prepare(settings(seq_length=22, on_overlong="truncate_right"))


def test_no_row_left(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("a" * 40, "b")])
    with pytest.raises(UserError, match="no row of"):
        prepare(settings(seq_length=22, on_overlong="drop"))
    write_rows("train.jsonl", [])
    with pytest.raises(UserError, match="holds no rows"):
        prepare(settings())


def test_plain_text(settings: Settings, write_rows: Rows) -> None:
    write_rows("train.jsonl", [{"body": "ab"}])
    prepared = prepare(settings(format="text", columns=Columns(text="body")))
    ((tokens, mask),) = stored(prepared)
    assert len(tokens) == 3
    assert tokens[-1] == prepared.summary["eos_id"]
    assert mask == [1, 1, 1]
    write_rows("train.jsonl", [{"body": "a<|im_end|>b"}])
    with pytest.raises(UserError, match="special-token"):
        prepare(settings(format="text", columns=Columns(text="body")))


def test_ids_beyond_the_vocabulary(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    with pytest.raises(UserError, match=r"ids up to 264, but `model\.vocab_size` is 264"):
        prepare(settings(vocab_size=264))
    assert prepare(settings(vocab_size=265)).is_new


def test_missing_tokenizer(settings: Settings, write_rows: Rows, pair: Pair, tmp_path: Path) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    with pytest.raises(UserError, match=r"`tokenizer\.path`: .*nowhere/tokenizer\.json"):
        prepare(settings(tokenizer_path=tmp_path / "nowhere"))


def test_progress_reaches_the_end(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    path = write_rows("train.jsonl", [pair("a", "b")] * 3)
    heard: list[tuple[int, int, int]] = []
    prepare(settings(valid_data_path=path, on_shared_rows="keep"), lambda *numbers: heard.append(numbers))
    size = path.stat().st_size
    assert heard[0] == (0, 2 * size, 0)
    assert heard[-1] == (2 * size, 2 * size, 6)
    assert heard == sorted(heard)


def test_damaged_store_is_made_again(settings: Settings, write_rows: Rows, pair: Pair) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    first = prepare(settings())
    content = {path.name: path.read_bytes() for path in first.store.iterdir()}
    for name in content:
        (first.store / name).write_bytes(b"{}")
        assert prepare(settings()).is_new, name
        assert {path.name: path.read_bytes() for path in first.store.iterdir()} == content
    (first.store / "train.mask.bin").unlink()
    assert prepare(settings()).is_new


CHILD = """
import os, signal, sys, time
from pathlib import Path
from sftc.runtime.data import prepare as module
from sftc.runtime.data.settings import DataSettings
root = Path(sys.argv[1])
def stop(*_):
    print("half way", flush=True)
    time.sleep(60)
module.write_summary = stop
module.prepare(DataSettings(train_data_path=root / "train.jsonl", store_path=root / "store",
    tokenizer_path=root / "tokenizer", seq_length=64, vocab_size=300))
"""


def test_killed_preparation_is_done_again_and_waited_for(
    settings: Settings, write_rows: Rows, pair: Pair, tmp_path: Path
) -> None:
    write_rows("train.jsonl", [pair("a", "b")] * 5)
    chosen = settings()
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"half way\n"
    (half,) = in_store(chosen)
    assert half.endswith(".partial")
    waited: list[float] = []

    def kill(sentence: str) -> None:
        assert "waiting" in sentence
        waited.append(time.monotonic())
        os.kill(child.pid, signal.SIGKILL)

    prepared = prepare(chosen, notice=kill)
    child.wait()
    assert len(waited) == 1
    assert prepared.is_new
    assert len(stored(prepared)) == 5
    assert in_store(chosen) == [prepared.store.name]


def test_what_another_node_has_made_meanwhile_is_kept(tmp_path: Path) -> None:
    """Its ranks may be reading it, and a network file system may have shown it late."""
    for content in ("first", "second"):
        with new_directory(tmp_path, "key") as directory:
            (directory / "rows").write_text(content)
            write_summary(directory, {})
    assert (tmp_path / "key" / "rows").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_lock_is_released(tmp_path: Path) -> None:
    def never() -> None:
        raise AssertionError("nobody holds it")

    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path, "key", never):
            raise KeyError


def test_store_that_cannot_be_written(settings: Settings, write_rows: Rows, pair: Pair, tmp_path: Path) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        prepare(settings(store_path=tmp_path / "file" / "store"))


def test_run_gets_a_pointer(
    write_rows: Rows, pair: Pair, make_tokenizer: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    write_rows("valid.jsonl", [pair("c", "d")] * 5)
    make_tokenizer()
    monkeypatch.chdir(tmp_path)
    plan: dict[str, Any] = {
        "task.kind": "sft",
        "data.train_data_path": "train.jsonl",
        "data.sources": None,
        "data.valid_fraction": None,
        "data.on_shared_rows": "error",
        "data.valid_data_path": "valid.jsonl",
        "data.format": "messages",
        "data.columns.messages": "messages",
        "data.columns.prompt": "prompt",
        "data.columns.completion": "completion",
        "data.columns.conversations": "conversations",
        "data.columns.instruction": "instruction",
        "data.columns.input": "input",
        "data.columns.output": "output",
        "data.columns.history": "history",
        "data.columns.system": None,
        "data.columns.text": "text",
        "data.loss_on": "assistant",
        "data.loss_on_reasoning": True,
        "data.on_overlong": "error",
        "data.on_bad_row": "error",
        "data.store_path": ".sftc/store",
        "tokenizer.path": "tokenizer",
        "tokenizer.chat_template": None,
        "train.seq_length": 64,
        "data.packing": False,
        "train.global_batch_size": 4,
        "eval.eval_iters": None,
        "model.vocab_size": 300,
        "logging.run_path": "runs/test",
    }
    prepared = prepare_run(plan.__getitem__, tmp_path / "build", "0" * 64, lambda *_: None)
    pointer = json.loads((tmp_path / "runs/test/data.json").read_text())
    assert pointer == {
        "manifest": "0" * 64,
        "store": f".sftc/store/{prepared.store.name}",
        "train_samples": 1,
        "valid_samples": 5,
        "eval_samples": 8,
    }
    prepare_run((plan | {"eval.eval_iters": 3}).__getitem__, tmp_path / "build", "0" * 64, lambda *_: None)
    assert json.loads((tmp_path / "runs/test/data.json").read_text())["eval_samples"] == 12


THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n"
    "</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("reply", "trained", "answer"),
    [
        ({"content": "b", "reasoning_content": "r"}, "<think>\nr\n</think>\n\nb<|im_end|>", "b<|im_end|>"),
        ({"content": "<think>r</think>b"}, "<think>r</think>b<|im_end|>", "b<|im_end|>"),
        ({"content": "b"}, "b<|im_end|>", "b<|im_end|>"),
    ],
)
def test_reasoning_need_not_be_trained_on(
    settings: Settings, write_rows: Rows, make_tokenizer: Any, reply: dict[str, str], trained: str, answer: str
) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", **reply}]
    write_rows("train.jsonl", [{"messages": messages}])
    chosen = settings(tokenizer_path=make_tokenizer(THINKS))
    tokenizer = TextTokenizer.load(chosen.tokenizer_path, 300)
    for on, wanted in ((True, trained), (False, answer)):
        ((tokens, mask),) = stored(prepare(replace(chosen, loss_on_reasoning=on)))
        assert tokenizer.decode([token for token, is_on in zip(tokens, mask, strict=True) if is_on]) == wanted


def test_a_turn_of_nothing_but_reasoning(settings: Settings, write_rows: Rows, make_tokenizer: Any) -> None:
    reply = {"role": "assistant", "content": "", "reasoning_content": "r"}
    path = write_rows("train.jsonl", [{"messages": [{"role": "user", "content": "a"}, reply]}])
    chosen = settings(tokenizer_path=make_tokenizer(THINKS.replace("<think>\n", "").replace("\n</think>\n\n", "")))
    with pytest.raises(UserError, match=rf"{path}:1: nothing-to-train message 2 \(assistant\): it is nothing but"):
        prepare(replace(chosen, loss_on_reasoning=False))
