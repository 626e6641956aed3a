"""safetensors files, written one tensor after the other: only the one at hand is in memory."""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .files import INDEX, SINGLE

WORDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A tensor to come."""

    name: str
    shape: tuple[int, ...]

    def bytes(self, dtype: torch.dtype) -> int:
        return math.prod(self.shape) * dtype.itemsize


def write_tensors(
    folder: Path, outlines: Sequence[Outline], tensors: Iterable[torch.Tensor], dtype: torch.dtype, max_shard: int
) -> None:
    """`tensors` are those of `outlines`, in their order; a file holds up to `max_shard` bytes, or one tensor."""
    shards = list(_shards(outlines, dtype, max_shard))
    names = [SINGLE] if len(shards) == 1 else [_shard_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    source = iter(tensors)
    for name, shard in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            _write_header(file, shard, dtype)
            for outline in shard:
                tensor = next(source)
                assert tuple(tensor.shape) == outline.shape, outline.name
                file.write(tensor.to(dtype).contiguous().flatten().view(torch.uint8).numpy().data)
    if len(shards) > 1:
        index: Mapping[str, Any] = {
            "metadata": {"total_size": sum(outline.bytes(dtype) for outline in outlines)},
            "weight_map": {one.name: name for name, shard in zip(names, shards, strict=True) for one in shard},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shards(outlines: Sequence[Outline], dtype: torch.dtype, max_shard: int) -> Iterator[list[Outline]]:
    shard: list[Outline] = []
    size = 0
    for outline in outlines:
        if shard and size + outline.bytes(dtype) > max_shard:
            yield shard
            shard, size = [], 0
        shard.append(outline)
        size += outline.bytes(dtype)
    yield shard


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _write_header(file: BinaryIO, shard: Sequence[Outline], dtype: torch.dtype) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for outline in shard:
        end = offset + outline.bytes(dtype)
        header[outline.name] = {"dtype": WORDS[dtype], "shape": list(outline.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight bytes
    file.write(struct.pack("<Q", len(text)) + text)
