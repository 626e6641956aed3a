"""Sequences of numbers in Megatron's indexed format: `PREFIX.bin` and `PREFIX.idx`.

`.bin` holds the sequences one after the other. `.idx`, little-endian: nine bytes of magic, version 1 (u64), type code
(u8), number of sequences (u64), number of document borders (u64), lengths in items (i32 each), offsets in bytes (i64
each), document borders (i64 each, from 0). Source: megatron/core/datasets/indexed_dataset.py. Here each sequence is a
document.
"""

import os
import struct
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
# Megatron's codes, without those of fractions.
CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "uint16": 8}
DTYPES = {code: np.dtype(name) for name, code in CODES.items()}


def token_dtype(vocab_size: int) -> "np.dtype[Any]":
    """The type that Megatron itself chooses for ids below `vocab_size`."""
    return np.dtype(np.uint16 if vocab_size < 65500 else np.int32)


class IndexedWriter:
    """Writes one new pair of files. On leaving without error the index is written, and both are synced."""

    def __init__(self, prefix: Path, dtype: "np.dtype[Any]") -> None:
        self.prefix = prefix
        self.dtype = dtype
        self.lengths = array("i")
        self._bin = prefix.with_name(prefix.name + ".bin").open("xb", buffering=1 << 20)

    def add(self, sequence: NDArray[Any]) -> None:
        """Append one sequence."""
        self._bin.write(sequence.astype(self.dtype, copy=False).tobytes())
        self.lengths.append(len(sequence))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._bin:
            if kind is None:
                self._bin.flush()
                os.fsync(self._bin.fileno())
        if kind is None:
            self._write_index()

    def _write_index(self) -> None:
        count = len(self.lengths)
        lengths = np.frombuffer(self.lengths, dtype=np.int32) if count else np.zeros(0, np.int32)
        ends = np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
        with self.prefix.with_name(self.prefix.name + ".idx").open("xb") as index:
            index.write(HEADER.pack(MAGIC, 1, CODES[self.dtype.name], count, count + 1))
            index.write(lengths.astype("<i4").tobytes())
            index.write(np.concatenate([np.zeros(min(count, 1), np.int64), ends[:-1]]).astype("<i8").tobytes())
            index.write(np.arange(count + 1, dtype="<i8").tobytes())
            index.flush()
            os.fsync(index.fileno())


class IndexedReader:
    """Sequences by index, memory-mapped; maps anew in each process that it is sent to. ValueError for other formats."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        index = prefix.with_name(prefix.name + ".idx")
        with index.open("rb") as stream:
            head = stream.read(HEADER.size)
        if len(head) < HEADER.size or head[:9] != MAGIC:
            raise ValueError(f"{index} is no index of sequences")
        _, version, code, self._count, borders = HEADER.unpack(head)
        if version != 1 or code not in DTYPES:
            raise ValueError(f"{index} has version {version} and type code {code}, which are not known here")
        self.dtype = DTYPES[code]
        raw = np.memmap(index, mode="r", offset=0)
        at = HEADER.size
        if raw.size < at + 12 * self._count + 8 * borders:
            raise ValueError(f"{index} is cut off")
        self.lengths: NDArray[np.int32] = np.frombuffer(raw, "<i4", self._count, at)
        self._offsets: NDArray[np.int64] = np.frombuffer(raw, "<i8", self._count, at + 4 * self._count)
        path = prefix.with_name(prefix.name + ".bin")
        self._borders: NDArray[np.int64] = np.frombuffer(raw, "<i8", borders, at + 12 * self._count)
        needed = int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize
        if path.stat().st_size < needed:
            raise ValueError(f"{path} is cut off: it has {path.stat().st_size:,} bytes of {needed:,}")
        # An empty file cannot be mapped.
        self._data = np.memmap(path, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.frombuffer(self._data, self.dtype, int(self.lengths[index]), int(self._offsets[index]))

    @property
    def documents(self) -> int:
        """How many there are; each is one sequence or several."""
        return len(self._borders) - 1

    def document(self, number: int) -> NDArray[Any]:
        """All sequences of a document, as one."""
        first, last = int(self._borders[number]), int(self._borders[number + 1])
        if last - first == 1:
            return self[first]
        return np.concatenate([np.zeros(0, self.dtype), *(self[index] for index in range(first, last))])

    def end_of(self, number: int) -> int:
        """Where a document ends, in bytes."""
        last = int(self._borders[number + 1]) - 1
        return int(self._offsets[last]) + int(self.lengths[last]) * self.dtype.itemsize if last >= 0 else 0

    def __reduce__(self) -> tuple[type["IndexedReader"], tuple[Path]]:
        return IndexedReader, (self.prefix,)
