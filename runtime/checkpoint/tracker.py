"""Megatron's checkpoint directory, as it lies on disk.

`latest_checkpointed_iteration.txt` names the newest complete checkpoint: an iteration, whose files are in
`iter_0000123/`, or the word `release`, whose files are in `release/`. Megatron writes it last.
"""

from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError

TRACKER = "latest_checkpointed_iteration.txt"
ADAPTERS = b"lora_base"  # as `lora.digest`, which needs torch, calls it


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint; its files lie in `folder`. `iteration` is 0 for a release, which carries weights only."""

    root: Path
    folder: Path
    iteration: int

    @property
    def is_of_adapters(self) -> bool:
        """Whether LoRA wrote it, which leaves the frozen weights out: the list of what is in it names their digest."""
        contents = self.folder / ".metadata"
        return contents.is_file() and ADAPTERS in contents.read_bytes()


def find_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint under `root`; None without a tracker file. UserError for a torn one."""
    tracker = root / TRACKER
    if not tracker.is_file():
        return None
    text = tracker.read_text(encoding="utf-8", errors="replace").strip()
    if text != "release" and not text.isdecimal():
        raise UserError(f"`{tracker}` names no iteration: it holds `{text[:40]}`", help=_repair(root, tracker))
    folder = root / (text if text == "release" else f"iter_{int(text):07d}")
    if not is_complete(folder):
        state = "is not there" if not folder.is_dir() else "has neither `metadata.json` nor `mp_rank_*`: it is torn"
        raise UserError(f"`{tracker}` names `{folder.name}`, which {state}", help=_repair(root, tracker))
    return Checkpoint(root=root, folder=folder, iteration=0 if text == "release" else int(text))


def is_complete(folder: Path) -> bool:
    """`torch_dist` writes metadata.json after all shards; the legacy format has one mp_rank folder per rank."""
    return (folder / "metadata.json").is_file() or any(folder.glob("mp_rank_*"))


def _repair(root: Path, tracker: Path) -> str:
    whole = sorted(folder.name for folder in root.glob("iter_*") if is_complete(folder))
    if not whole:
        return f"no checkpoint under `{root}` is whole: move it away to start anew"
    return f"`{whole[-1]}` is whole: `echo {int(whole[-1].removeprefix('iter_'))} > {tracker}` goes on from there"
