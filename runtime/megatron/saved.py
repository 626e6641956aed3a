"""A `torch_dist` checkpoint of Megatron's, read tensor by tensor: no ranks, no GPU, no model.

The tensors are stored by their place in the whole model, so any parallel layout reads the same. Layers of one kind are
one tensor with the layers as its first axis, and all experts of a layer are one with the experts as the next;
checkpoints of layers that differ name each of them.
"""

from pathlib import Path

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from ..errors import UserError


class SavedModel:
    """The checkpoint in `folder`. UserError if it is no `torch_dist` checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / ".metadata").is_file():
            raise UserError(
                f"`{folder}` is no checkpoint in the format `torch_dist`",
                help="only `checkpoint.ckpt_format: torch_dist`",
            )
        self._reader = FileSystemReader(folder)
        metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(metadata, is_coordinator=True)
        self._tensors = {
            key: entry
            for key, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata) and not key.startswith(("optimizer.", "chained_"))
        }

    @property
    def names(self) -> set[str]:
        """Of all tensors of the model."""
        return set(self._tensors)

    def find(self, name: str, place: dict[str, int]) -> tuple[str, tuple[int, ...]] | None:
        """The stored tensor that holds `name`, with the fields of `place` in braces, and where it is in it."""
        fields = [field for field in ("layer", "expert") if field in place]
        for count in range(len(fields), -1, -1):  # how many of its first fields are axes
            axes, text = fields[:count], name
            for field in axes:
                text = text.replace(f"{{{field}}}.", "")
            key = text.format(**place)
            if key in self._tensors:
                return key, tuple(place[field] for field in axes)
        return None

    def dtype(self, key: str) -> torch.dtype:
        return self._tensors[key].properties.dtype

    def read(self, key: str, index: tuple[int, ...]) -> torch.Tensor:
        """That part of it, on the CPU."""
        entry = self._tensors[key]
        rest = entry.size[len(index) :]
        target = torch.empty((*(1 for _ in index), *rest), dtype=entry.properties.dtype)
        chunk = ChunkStorageMetadata(offsets=torch.Size((*index, *(0 for _ in rest))), sizes=torch.Size(target.shape))
        items = create_read_items_for_chunk_list(key, entry, [chunk])
        read = sum(item.lengths.numel() for item in items)
        if read != target.numel():
            raise UserError(f"`{self.folder}` holds {read} of the {target.numel()} entries of `{key}`")
        self._reader.read_data(LoadPlan(items), _Into(target)).wait()
        return target.reshape(rest)


class _Into(DefaultLoadPlanner):
    """Reads go into one tensor."""

    def __init__(self, target: torch.Tensor) -> None:
        super().__init__()
        self._target = target

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        found = self._target
        for axis, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            found = found.narrow(axis, start, length)
        return found

    def commit_tensor(self, read_item: ReadItem, tensor: torch.Tensor) -> None: ...
