"""The files that the run-time inputs of a plan are made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..checkpoint.start import HUGGING_FACE
from ..checkpoint.tracker import TRACKER, find_checkpoint
from ..data import hub
from ..data.files import find_files
from ..data.prefixes import files_of, mask_of, prefix_of
from ..data.settings import DataSettings, Source
from ..errors import UserError
from ..hf.files import weight_files
from ..hf.tokenizer import FILES as EXPORTED
from ..hf.tokenizer import TEMPLATE

type Kind = Literal["rows", "tokens", "hub", "tokenizer", "hugging_face", "megatron"]

LOAD, TOKENIZER_KEY = "model.load", "tokenizer.path"
# A template is locked by its text, wherever it stands.
TOKENIZER = (*(name for name in EXPORTED if name != TEMPLATE), "generation_config.json")
NEEDED = ("tokenizer.json", "tokenizer_config.json")
# Of a checkpoint: what says which tensors there are, and the state that is not split. Shards are known by their sizes.
METADATA = ("metadata.json", ".metadata", "common.pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """`path` is as the recipe has it; `digested` files are locked by their content, `sized` ones by their size."""

    key: str
    path: str
    kind: Kind
    digested: tuple[Path, ...] = ()
    sized: tuple[Path, ...] = ()


def inputs_of(value: Callable[[str], Any]) -> Iterator[Input]:
    """`value` gives the plan's value of a key. UserError for an input that is not there or cannot be locked."""
    settings = DataSettings.from_plan(value, Path())
    for sources in settings.splits().values():
        for source in sources:
            yield rows_of(source, settings.is_pretrain)
    yield tokenizer_of(str(value("tokenizer.path")))
    if value(LOAD) is not None:
        yield weights_of(str(value(LOAD)))


def files_now(kind: Kind, path: str, key: str) -> list[Path]:
    """The files of an input of which there may be more by now than were locked. UserError if it cannot be read."""
    if kind == "rows":
        return [file.path for file in find_files(Path(path), key)]
    if kind == "tokenizer":
        return [Path(path) / name for name in TOKENIZER if (Path(path) / name).is_file()]
    if kind == "hugging_face":
        return weight_files(Path(path.removeprefix(HUGGING_FACE)))
    return []


def rows_of(source: Source, is_pretrain: bool) -> Input:
    """UserError if they are not there, or lie on the hub without a commit."""
    if hub.is_hub(source.path):
        if not hub.is_pinned(source.path):
            raise UserError(
                f"`{source.key}`: `{source.path}` names no commit, and what it means may change",
                "write `hf://datasets/OWNER/NAME@COMMIT`, with the 40 digits of the commit",
            )
        return Input(key=source.key, path=source.path, kind="hub")
    prefix = prefix_of(source.path)
    if source.format == "tokens" or (source.format == "auto" and prefix is not None):
        prefix = prefix or Path(source.path)
        files = files_of(prefix) + ([] if is_pretrain else files_of(mask_of(prefix)))
        return Input(key=source.key, path=source.path, kind="tokens", digested=tuple(files))
    found = tuple(files_now("rows", source.path, source.key))
    return Input(key=source.key, path=source.path, kind="rows", digested=found)


def tokenizer_of(path: str) -> Input:
    """UserError if a file that every tokenizer has is not there."""
    found = files_now("tokenizer", path, TOKENIZER_KEY)
    if missing := [name for name in NEEDED if Path(path) / name not in found]:
        raise UserError(f"`{TOKENIZER_KEY}`: there is no `{Path(path) / missing[0]}`", relative_to())
    return Input(key=TOKENIZER_KEY, path=path, kind="tokenizer", digested=tuple(found))


def weights_of(load: str) -> Input:
    """Of a `model.load`. UserError if it holds none."""
    if load.startswith(HUGGING_FACE):
        files = (Path(load.removeprefix(HUGGING_FACE)) / "config.json", *files_now("hugging_face", load, LOAD))
        return Input(key=LOAD, path=load, kind="hugging_face", digested=files)
    found = find_checkpoint(Path(load))
    if found is None:
        raise UserError(
            f"`{LOAD}: {load}` holds no Megatron checkpoint (no `{TRACKER}` there)",
            relative_to(),
        )
    files = tuple(sorted(path for path in found.folder.rglob("*") if path.is_file()))
    return Input(
        key=LOAD,
        path=load,
        kind="megatron",
        digested=(found.root / TRACKER, *(path for path in files if path.name in METADATA)),
        sized=tuple(path for path in files if path.name not in METADATA),
    )


def relative_to() -> str:
    """What helps where a path leads nowhere."""
    return f"paths are relative to the directory that launch.sh is started in, here `{Path.cwd()}`"
