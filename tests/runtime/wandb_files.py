"""What W&B has written offline. Its library writes these files and has no reader for them.

A file is 7 bytes and then a log of records as LevelDB frames them: blocks of 32 KiB; before each fragment a checksum (4
bytes), its length (2) and its kind: the whole of a record, its first part, a middle one, its last.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD, BLOCK, FRAME = 7, 1 << 15, struct.Struct("<IHB")
WHOLE, LAST = 1, 4


def histories(run_path: Path) -> list[list[dict[str, Any]]]:
    """For each start, in order, the rows that were logged."""
    return [
        [
            {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for record in records(path)
            if record.WhichOneof("record_type") == "history"
        ]
        for path in files(run_path)
    ]


def records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    for content in _contents(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        yield record


def files(run_path: Path) -> list[Path]:
    return sorted(run_path.glob("wandb/offline-run-*/run-*.wandb"))


def _contents(data: bytes) -> Iterator[bytes]:
    at, content = HEAD, b""
    while at + FRAME.size <= len(data):
        left = BLOCK - at % BLOCK
        if left < FRAME.size:
            at += left
            continue
        _, size, kind = FRAME.unpack_from(data, at)
        at += FRAME.size
        content += data[at : at + size]
        at += size
        if kind in (WHOLE, LAST):
            yield content
            content = b""
