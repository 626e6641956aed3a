"""A directory of safetensors files: what is in it, read off the headers alone. Standard library only.

A file begins with the length of its header, eight bytes, little-endian, and the header: a JSON object with the type,
shape and byte range of every tensor. Sharded models have an index of which tensor is in which file.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
TYPES = ("F32", "BF16", "F16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor of the model. `dtype` is the format's word, such as `BF16`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor by its name. UserError for missing, torn or foreign files."""
    index, single = directory / INDEX, directory / SINGLE
    if index.is_file():
        return _indexed(directory, read_json(index))
    if single.is_file():
        return _header(single)
    if other := sorted(path.name for pattern in ("*.bin", "*.pth", "*.gguf") for path in directory.glob(pattern)):
        raise UserError(
            f"`{directory}` holds its weights as `{other[0]}`, and sftc reads safetensors only",
            help="load it with transformers and save it with `save_pretrained`, which writes safetensors",
        )
    raise UserError(f"`{directory}` holds neither `{SINGLE}` nor `{INDEX}`", help=_DOWNLOAD)


def read_json(path: Path) -> dict[str, Any]:
    """UserError if the file is missing or no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no `{path}`", help=_DOWNLOAD) from None
    except (ValueError, OSError) as error:
        raise UserError(f"`{path}` is unreadable: {error}", help=_DOWNLOAD) from None
    if not isinstance(content, dict):
        raise UserError(f"`{path}` holds no JSON object", help=_DOWNLOAD)
    return content


_DOWNLOAD = "download the model again; a checkout made with git needs `git lfs pull`"


def weight_files(directory: Path) -> list[Path]:
    """The index, if there is one, and the files of tensors that the model is read from. UserError for a bad index."""
    index = directory / INDEX
    if not index.is_file():
        return [directory / SINGLE]
    names: dict[str, str] = read_json(index).get("weight_map") or {}
    return [index, *(directory / name for name in sorted(set(names.values())))]


def _indexed(directory: Path, index: Mapping[str, Any]) -> dict[str, Tensor]:
    wanted: dict[str, str] = index.get("weight_map") or {}
    names = sorted(set(wanted.values()))
    if absent := [name for name in names if not (directory / name).is_file()]:
        raise UserError(f"`{directory / INDEX}` names files that are not there: {', '.join(absent)}", help=_DOWNLOAD)
    found: dict[str, Tensor] = {}
    for name in names:
        found |= _header(directory / name)
    lost = sorted(name for name, file in wanted.items() if name not in found or found[name].file.name != file)
    if lost:
        raise UserError(
            f"`{directory / INDEX}` promises {len(lost)} tensors that its files do not hold, such as `{lost[0]}`",
            help=_DOWNLOAD,
        )
    return found


def _header(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise UserError(f"`{path}` is a pointer of git-lfs, not the file", help=_DOWNLOAD)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(LONGEST_HEADER, size - 8):
            raise _torn(path)
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            ends = [8 + length + entry["data_offsets"][1] for entry in header.values()]
            found = {
                name: Tensor(file=path, dtype=entry["dtype"], shape=tuple(entry["shape"]))
                for name, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise _torn(path) from None
    if max(ends, default=0) > size:
        raise _torn(path)
    return found


def _torn(path: Path) -> UserError:
    return UserError(f"`{path}` is no whole safetensors file ({path.stat().st_size:,} bytes)", help=_DOWNLOAD)
