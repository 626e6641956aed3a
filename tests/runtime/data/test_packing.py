"""Pack plans by their properties, and packs as samples."""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftc.runtime.data.indexed import IndexedReader
from sftc.runtime.data.packing import lay_out, padded, plan_packs, write_packs
from sftc.runtime.data.prepare import Prepared, prepare
from sftc.runtime.data.settings import DataSettings

type Lengths = "np.ndarray[Any, np.dtype[np.int64]]"
LETTERS = "abcdefghijklmnopqrstuvw"


def log_normal(count: int, capacity: int, seed: int = 1) -> Lengths:
    drawn = np.random.default_rng(seed).lognormal(6.2, 0.9, count)
    return np.clip(drawn, 1, capacity).astype(np.int64)


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Best-fit-decreasing as a textbook says it: the space that is left in each pack."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in spaces if space >= length]
        best = min(fitting, default=capacity)
        if fitting:
            spaces.remove(best)
        spaces.append(best - length)
    return sorted(spaces)


@pytest.mark.parametrize("seed", range(40))
def test_every_document_is_in_one_pack_and_no_pack_is_too_full(seed: int) -> None:
    chance = np.random.default_rng(seed)
    capacity = int(chance.integers(1, 60))
    lengths = chance.integers(1, capacity + 1, int(chance.integers(0, 300)))
    packs = plan_packs(lengths, capacity)
    assert sorted(row for pack in packs for row in pack.tolist()) == list(range(len(lengths)))
    assert all(len(pack) and lengths[pack].sum() <= capacity for pack in packs)
    assert all((np.diff(pack) > 0).all() for pack in packs)
    # Placing documents of a length together gives what placing them one by one gives.
    assert sorted(int(capacity - lengths[pack].sum()) for pack in packs) == one_by_one(lengths.tolist(), capacity)


def test_a_million_lengths_fill_their_packs_in_three_seconds() -> None:
    lengths = log_normal(1_000_000, 4096)
    begun = time.process_time()
    packs = plan_packs(lengths, 4096)
    assert time.process_time() - begun < 3
    assert lengths.sum() / (4096 * len(packs)) >= 0.999


def test_a_plan_follows_from_lengths_capacity_and_multiple_alone(tmp_path: Path) -> None:
    tokens = (log_normal(5000, 1024) + 1).tolist()
    first, again = (write_packs(tmp_path / name, [tokens], 1024, 1)[0] for name in ("first", "again"))
    assert first == again
    assert (tmp_path / "first.bin").read_bytes() == (tmp_path / "again.bin").read_bytes()
    others = [write_packs(tmp_path / n, [t], 1024, m)[0] for n, t, m in (("b", tokens[1:], 1), ("c", tokens, 4))]
    assert len({figures["sha256"] for figures in (first, *others)}) == 3
    assert first["use"] >= 0.99
    plan = IndexedReader(tmp_path / "first")
    assert (len(plan), int(plan.lengths.max())) == (first["packs"], first["documents_in_fullest"])
    lengths = padded(np.array(tokens) - 1, 4)
    assert all(lengths[IndexedReader(tmp_path / "c")[pack]].sum() <= 1024 for pack in range(others[1]["packs"]))


def test_groups_share_no_pack(tmp_path: Path) -> None:
    groups = [(log_normal(count, 256, seed=count) + 1).tolist() for count in (300, 40)]
    figures, counts = write_packs(tmp_path / "packs", groups, 256, 1)
    plan = IndexedReader(tmp_path / "packs")
    assert figures["packs"] == sum(counts) == len(plan)
    rows = [row for pack in range(len(plan)) for row in plan[pack].tolist()]
    assert sorted(rows) == list(range(340))
    assert all((plan[pack] < 300).all() for pack in range(counts[0]))
    assert all((plan[pack] >= 300).all() for pack in range(counts[0], len(plan)))


@pytest.mark.parametrize("lengths", [[0, 3], [3, 9]])
def test_lengths_that_fit_no_pack(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit packs of 1 to 8"):
        plan_packs(np.array(lengths), 8)


def test_no_documents_need_no_packs() -> None:
    assert plan_packs(np.zeros(0, np.int64), 8) == []


def test_a_sample_of_two_documents() -> None:
    documents = [(np.array([5, 6, 7, 8]), np.array([0, 0, 1, 1])), (np.array([4, 3]), np.array([1, 1]))]
    tight = lay_out(documents, seq_length=6, multiple=1, pad_id=9, borders=5)
    assert {key: values.tolist() for key, values in tight.items()} == {
        "tokens": [5, 6, 7, 4, 9, 9],
        "labels": [6, 7, 8, 3, 9, 9],
        # that 4 is the first token of a document is not to be learnt from the one before
        "loss_mask": [0, 1, 1, 1, 0, 0],
        "position_ids": [0, 1, 2, 0, 0, 1],
        "cu_seqlens": [0, 3, 4, 6, 6],
    }
    cut = lay_out(documents, seq_length=8, multiple=4, pad_id=9, borders=4)
    assert cut["tokens"].tolist() == [5, 6, 7, 9, 4, 9, 9, 9]
    assert cut["loss_mask"].tolist() == [0, 1, 1, 0, 1, 0, 0, 0]
    assert cut["position_ids"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert cut["cu_seqlens"].tolist() == [0, 4, 8, 8]
    assert {str(values.dtype) for values in tight.values()} == {"int64", "float32", "int32"}
    filler = lay_out([], seq_length=4, multiple=1, pad_id=9, borders=3)
    assert (filler["cu_seqlens"].tolist(), filler["loss_mask"].sum()) == ([0, 4, 4], 0)


@pytest.fixture
def packed(settings: Callable[..., DataSettings], write_rows: Callable[..., Path], pair: Any) -> Prepared:
    """23 rows of different lengths as training data, and seven as validation data, in packs of 96."""
    write_rows("train.jsonl", [pair("ask", letter * (at + 1)) for at, letter in enumerate(LETTERS)])
    valid = write_rows("valid.jsonl", [pair("q", letter * 5) for letter in LETTERS[:7]])
    return prepare(settings(seq_length=96, valid_data_path=valid, packing_multiple=1))


def test_packing_is_told_and_stored_beside_the_rows(packed: Prepared, settings: Callable[..., DataSettings]) -> None:
    figures = packed.summary["splits"]["train"]["packing"]
    lengths = IndexedReader(packed.store / "train.tokens").lengths - 1
    assert figures["use"] == pytest.approx(lengths.sum() / (96 * figures["packs"]), abs=1e-6)
    assert (packed.samples("train"), packed.rows("train")) == (figures["packs"], 23)
    told = f"train: 23 rows in {figures['packs']} packs of 96 positions, {figures['use']:.2%} in use"
    assert told in packed.notices
    valid = settings().train_data_path.with_name("valid.jsonl")
    alone, cut = (prepare(settings(seq_length=96, valid_data_path=valid, packing_multiple=m)) for m in (None, 4))
    assert len({packed.store, alone.store, cut.store}) == 3
    assert (alone.samples("train"), "packing" in alone.summary["splits"]["train"]) == (23, False)
    assert not [notice for notice in alone.notices if "packs" in notice]


def test_packed_samples_hold_each_row_once_an_epoch(packed: Prepared) -> None:
    torch = pytest.importorskip("torch")
    from sftc.runtime.data.dataset import PreparedData

    data = PreparedData.open(packed.store)
    assert data.rows("train") == packed.samples("train") < 23
    samples = data.train(num_samples=1, seed=3)
    rows = IndexedReader(packed.store / "train.tokens")
    wanted = sorted((rows[row][:-1].tolist(), rows[row][1:].tolist()) for row in range(len(rows)))
    orders = []
    for epoch in range(2):
        numbers = range(epoch * data.rows("train"), (epoch + 1) * data.rows("train"))
        batch = torch.utils.data.default_collate([samples[number] for number in numbers])
        seen = []
        for tokens, labels, borders in zip(batch["tokens"], batch["labels"], batch["cu_seqlens"], strict=True):
            ends = borders.unique().tolist()
            seen += [(tokens[a:b].tolist(), labels[a:b].tolist()) for a, b in pairwise(ends)]
        documents = [part for part in seen if set(part[0]) != {data.pad_id}]
        assert sorted(documents) == wanted
        assert int(batch["loss_mask"].sum()) == packed.summary["splits"]["train"]["supervised_tokens"]
        orders.append([samples.row_of(number) for number in numbers])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(data.rows("train")))
    assert data.train(num_samples=9, seed=3).row_of(data.rows("train") + 1) == orders[1][1]


def test_an_evaluation_of_packs_sees_each_row_once(packed: Prepared) -> None:
    pytest.importorskip("torch")
    from sftc.runtime.data.dataset import PreparedData

    data = PreparedData.open(packed.store)
    packs = data.rows("valid")
    samples = data.valid(num_samples=1, eval_samples=packs + 2)
    for evaluation in range(2):
        masks = [samples[evaluation * (packs + 2) + place]["loss_mask"] for place in range(packs + 2)]
        counts = [int(mask.sum()) for mask in masks]
        assert sum(counts) == packed.summary["splits"]["valid"]["supervised_tokens"] == 7 * 6
        assert counts[packs:] == [0, 0]
