"""Megatron's indexed files as rows, and the store as Megatron's indexed files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftc.runtime.data.indexed import IndexedReader, IndexedWriter
from sftc.runtime.data.prepare import Prepared, prepare
from sftc.runtime.data.settings import DataSettings
from sftc.runtime.errors import UserError

type Settings = Callable[..., DataSettings]


def write(prefix: Path, rows: list[list[int]], dtype: str = "uint16") -> None:
    with IndexedWriter(prefix, np.dtype(dtype)) as writer:
        for row in rows:
            writer.add(np.array(row))


def stored(prepared: Prepared, kind: str) -> list[list[int]]:
    reader = IndexedReader(prepared.store / f"train.{kind}")
    return [reader[row].tolist() for row in range(len(reader))]


def test_prepared_data_can_be_fed_again(settings: Settings, write_rows: Callable[..., Path], pair: Any) -> None:
    write_rows("train.jsonl", [pair("a", "b"), pair("cc", "dd")])
    first = prepare(settings())
    for name in ("train.tokens", "train.tokens.bin", "train.tokens.idx"):
        again = prepare(settings(train_data_path=first.store / name, format="auto"))
        assert [stored(again, kind) for kind in ("tokens", "mask")] == [
            stored(first, kind) for kind in ("tokens", "mask")
        ]
    assert again.summary["splits"]["train"]["proven_by"] == {"given": 2}
    assert any("masks of 2 rows were given, not proven" in notice for notice in again.notices)


def test_megatron_writes_and_reads_the_same(settings: Settings, tmp_path: Path) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    torch = pytest.importorskip("torch")
    documents = [[[5, 6], [7]], [[8, 9, 10]], [[11, 12], [13, 14], [15]]]
    for dtype in (np.uint16, np.int32, np.int64):
        prefix = tmp_path / dtype.__name__
        builder = indexed.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
        for document in documents:
            for sequence in document:
                builder.add_item(torch.tensor(sequence))
            builder.end_document()
        builder.finalize(f"{prefix}.idx")
        prepared = prepare(settings(train_data_path=prefix, format="tokens", is_pretrain=True))
        assert stored(prepared, "tokens") == [[5, 6, 7], [8, 9, 10], [11, 12, 13, 14, 15]]
    read = indexed.IndexedDataset(str(prepared.store / "train.tokens"))
    assert [read[row].tolist() for row in range(len(read))] == stored(prepared, "tokens")


def test_a_task_with_a_mask_needs_one(settings: Settings, tmp_path: Path) -> None:
    write(tmp_path / "rows", [[5, 6, 7]])
    chosen = settings(train_data_path=tmp_path / "rows", format="tokens")
    with pytest.raises(UserError, match=r"nothing says which of them are trained on: there is no `.*rows\.mask\.idx`"):
        prepare(chosen)
    assert prepare(replace(chosen, is_pretrain=True)).summary["splits"]["train"]["supervised_tokens"] == 2
    write(tmp_path / "rows.mask", [[0, 0, 1]], "uint8")
    assert prepare(chosen).summary["splits"]["train"]["supervised_tokens"] == 1


@pytest.mark.parametrize(
    ("tokens", "mask", "code"),
    [
        ([5, 300], [0, 1], "foreign-token"),
        ([5, 6, 7], [0, 1], "bad-mask"),
        ([5, 6, 7], [0, 2, 1], "bad-mask"),
        ([5, 6, 7], [1, 0, 0], "nothing-to-train"),
        ([], [], "nothing-to-train"),
    ],
)
def test_bad_documents_are_named(
    settings: Settings, tmp_path: Path, tokens: list[int], mask: list[int], code: str
) -> None:
    write(tmp_path / "rows", [[5, 6], tokens])
    write(tmp_path / "rows.mask", [[0, 1], mask], "uint8")
    with pytest.raises(UserError, match=rf"{tmp_path}/rows:2: {code} "):
        prepare(settings(train_data_path=tmp_path / "rows", format="tokens"))


def test_files_that_are_not_whole(settings: Settings, tmp_path: Path) -> None:
    write(tmp_path / "rows", [[5, 6, 7]] * 10)
    write(tmp_path / "rows.mask", [[0, 0, 1]] * 9, "uint8")
    chosen = settings(train_data_path=tmp_path / "rows", format="tokens")
    with pytest.raises(UserError, match=r"has 10 documents, `.*` has 9"):
        prepare(chosen)
    pretrain = replace(chosen, is_pretrain=True)
    whole = (tmp_path / "rows.bin").read_bytes()
    (tmp_path / "rows.bin").write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"rows\.bin is cut off: it has 59 bytes of 60"):
        prepare(pretrain)
    (tmp_path / "rows.bin").write_bytes(whole)
    (tmp_path / "rows.idx").write_bytes((tmp_path / "rows.idx").read_bytes()[:-3])
    with pytest.raises(UserError, match=r"rows\.idx is cut off"):
        prepare(pretrain)
    with pytest.raises(UserError, match=r"there are no files `.*nothing\.bin` and"):
        prepare(replace(pretrain, train_data_path=tmp_path / "nothing"))
