"""Prepared data as batches see it."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data.indexed import IndexedReader
from sftc.runtime.data.prepare import prepare
from sftc.runtime.data.settings import DataSettings
from sftc.runtime.errors import UserError

torch = pytest.importorskip("torch")

from sftc.runtime.data.dataset import PreparedData  # noqa: E402  (needs torch)


@pytest.fixture
def data(settings: Callable[..., DataSettings], write_rows: Callable[..., Path], pair: Any) -> PreparedData:
    """Seven training rows and three validation rows."""
    write_rows("train.jsonl", [pair(letter, letter) for letter in "abcdefg"])
    valid = write_rows("valid.jsonl", [pair(letter, letter * 3) for letter in "xyz"])
    return PreparedData.open(prepare(settings(seq_length=32, valid_data_path=valid)).store)


def test_shifted_and_padded(data: PreparedData) -> None:
    samples = data.train(num_samples=1, seed=1)
    sample = samples[0]
    row = IndexedReader(data.store / "train.tokens")[samples.row_of(0)].tolist()
    assert {key: (tuple(value.shape), value.dtype) for key, value in sample.items()} == {
        "tokens": ((32,), torch.int64),
        "labels": ((32,), torch.int64),
        "loss_mask": ((32,), torch.float32),
        "position_ids": ((32,), torch.int64),
        "length": ((), torch.int64),
    }
    length = len(row) - 1
    assert sample["length"] == length
    assert sample["tokens"][:length].tolist() == row[:-1]
    assert sample["labels"][:length].tolist() == row[1:]
    assert sample["tokens"][length:].tolist() == [data.pad_id] * (32 - length)
    assert sample["position_ids"].tolist() == list(range(32))
    # The answer and the end of the turn are the labels that count; the line end behind them is not.
    assert sample["loss_mask"].nonzero().flatten().tolist() == [length - 3, length - 2]
    assert sample["labels"][length - 2].item() == data.summary["eos_id"]


def test_every_epoch_is_a_permutation_of_its_own(data: PreparedData) -> None:
    samples = data.train(num_samples=100, seed=5)
    epochs = [[samples.row_of(epoch * 7 + place) for place in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    # Resumed anywhere, in another process, with another number of samples: the same order.
    again = pickle.loads(pickle.dumps(data.train(num_samples=5, seed=5)))
    assert [again.row_of(index) for index in (27, 3, 20)] == [epochs[3][6], epochs[0][3], epochs[2][6]]
    other = data.train(num_samples=100, seed=6)
    assert [other.row_of(index) for index in range(28)] != [row for epoch in epochs for row in epoch]
    assert len(samples) > 10**12


def test_each_evaluation_sees_each_row_once(data: PreparedData) -> None:
    samples = data.valid(num_samples=8, eval_samples=4)
    for evaluation in range(2):
        batch = [samples[evaluation * 4 + place] for place in range(4)]
        assert [int(sample["loss_mask"].sum()) for sample in batch] == [4, 4, 4, 0]
        assert len({tuple(sample["tokens"].tolist()) for sample in batch}) == 4


def test_smaller_evaluation_takes_rows_evenly(data: PreparedData) -> None:
    samples = data.valid(num_samples=2, eval_samples=2)
    assert [samples.row_of(index) for index in range(4)] == [0, 1, 0, 1]


def test_of_run(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data was prepared"):
        PreparedData.of_run(tmp_path / "run")
    (tmp_path / "run").mkdir()
    pointer = tmp_path / "run" / "data.json"
    pointer.write_text(json.dumps({"store": str(data.store), "eval_samples": 4}))
    opened = PreparedData.of_run(tmp_path / "run")
    assert opened.rows("valid") == 3
    assert opened.valid(num_samples=4).eval_samples == 4
    (data.store / "valid.mask.bin").unlink()
    with pytest.raises(UserError, match="gone or not whole"):
        PreparedData.of_run(tmp_path / "run")
    pointer.write_text("{")
    with pytest.raises(UserError, match="cannot be used"):
        PreparedData.of_run(tmp_path / "run")


def test_other_lengths(data: PreparedData) -> None:
    assert len(data.train(num_samples=1, seed=1, seq_length=64)[0]["tokens"]) == 64
    with pytest.raises(UserError, match="prepared for 32 positions, not 16"):
        data.train(num_samples=1, seed=1, seq_length=16)


def test_no_validation_rows(settings: Callable[..., DataSettings], write_rows: Callable[..., Path], pair: Any) -> None:
    write_rows("train.jsonl", [pair("a", "b")])
    data = PreparedData.open(prepare(settings()).store)
    assert data.rows("valid") == 0
    with pytest.raises(UserError, match=r"data\.valid_data_path"):
        data.valid(num_samples=1, eval_samples=1)
