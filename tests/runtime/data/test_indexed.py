"""Megatron's indexed format, checked against Megatron's own reader."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from sftc.runtime.data.indexed import IndexedReader, IndexedWriter, token_dtype

SEQUENCES = [[1, 2, 3], [], [65499], list(range(1000))]


def write(prefix: Path, dtype: "np.dtype[np.integer]") -> None:
    with IndexedWriter(prefix, dtype) as writer:
        for sequence in SEQUENCES:
            writer.add(np.array(sequence, np.int64))


@pytest.mark.parametrize("vocab_size", [60_000, 150_000])
def test_megatron_reads_it(tmp_path: Path, vocab_size: int) -> None:
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    dtype = token_dtype(vocab_size)
    assert dtype == indexed_dataset.DType.optimal_dtype(vocab_size)
    write(tmp_path / "a", dtype)
    dataset = indexed_dataset.IndexedDataset(str(tmp_path / "a"))
    assert [dataset[index].tolist() for index in range(len(dataset))] == SEQUENCES
    assert dataset.document_indices.tolist() == [0, 1, 2, 3, 4]


def test_we_read_it(tmp_path: Path) -> None:
    write(tmp_path / "a", np.dtype(np.int32))
    reader = IndexedReader(tmp_path / "a")
    for each in (reader, pickle.loads(pickle.dumps(reader))):
        assert [each[index].tolist() for index in range(len(each))] == SEQUENCES
    assert len(pickle.dumps(reader)) < 1000


def test_no_sequences(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "a", np.dtype(np.uint8)):
        pass
    assert len(IndexedReader(tmp_path / "a")) == 0


def test_other_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", np.dtype(np.int32))
    index = tmp_path / "a.idx"
    whole = index.read_bytes()
    for content in (b"", b"x" * 100, whole[:-60], whole[:9] + b"\x02" + whole[10:]):
        index.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.idx"):
            IndexedReader(tmp_path / "a")


def test_no_index_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(AttributeError), IndexedWriter(tmp_path / "a", np.dtype(np.int32)) as writer:
        writer.add(None)  # type: ignore[arg-type]
    assert not (tmp_path / "a.idx").exists()
