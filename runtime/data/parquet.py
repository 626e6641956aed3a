"""Rows of a parquet file, a batch at a time; the only importer of pyarrow, which few need and which is large.

A struct of parquet has every key that any row has, null where a row does not have it, so a key below a column that is
null is taken for no key: a tool's arguments would otherwise be made up. Who means null writes them as JSON text.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from .rows import Row, RowError

BATCH_ROWS = 256


def require_pyarrow(path: Path, key: str) -> None:
    """UserError if pyarrow, which `path` is read with, is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UserError(
            f"`{key}`: `{path}` is read with pyarrow, which is not installed",
            "install the extra `parquet`: `pip install 'sftc[parquet]'`",
        ) from None


def parquet_rows(path: Path) -> Iterator[tuple[int, int, Row | RowError]]:
    """Number, from 1, of every row, how many there are, and the row. Memory is bounded by the largest row group."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            total: int = file.metadata.num_rows
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row in _rows_of(batch):
                    number += 1
                    yield number, total, row
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).strip().split("\n")[0]
        raise UserError(
            f"`{path}` cannot be read as parquet: {said}; nothing was stored", "it may be cut off: copy it again"
        ) from None


def _rows_of(batch: Any) -> Iterator[Row | RowError]:
    try:
        yield from map(without_nulls, batch.to_pylist())
    except UnicodeDecodeError:
        # Arrow does not check its strings: one by one, to find out whose are not UTF-8.
        for index in range(batch.num_rows):
            try:
                (row,) = batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield RowError("not-utf8", f"a string of the row has the byte 0x{error.object[error.start]:02x}")
            else:
                yield without_nulls(row)


def without_nulls(row: dict[str, Any]) -> Row:
    """`row` without the keys below its columns that are null."""
    return {name: _said(value) if isinstance(value, dict | list) else value for name, value in row.items()}


def _said(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _said(item) for key, item in value.items() if item is not None}
    return [_said(item) for item in value] if isinstance(value, list) else value
