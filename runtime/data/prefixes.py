"""The files of a prefix of Megatron's indexed files, by their names alone."""

from pathlib import Path

ENDS = (".idx", ".bin")


def prefix_of(path: str) -> Path | None:
    """The prefix that `path` names, with or without `.bin` or `.idx`; None if there is no index of that name."""
    bare = Path(path.removesuffix(".bin").removesuffix(".idx"))
    return bare if bare.with_name(bare.name + ".idx").is_file() else None


def mask_of(prefix: Path) -> Path:
    """The prefix of the mask that belongs to the tokens of `prefix`."""
    return prefix.with_name(prefix.name.removesuffix(".tokens") + ".mask")


def files_of(prefix: Path) -> list[Path]:
    return [prefix.with_name(prefix.name + end) for end in ENDS]
