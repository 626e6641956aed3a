"""From a run's checkpoint to a directory in Hugging Face's format: on the CPU, without Megatron's model and ranks."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..bundle import Bundle
from ..checkpoint.of_run import checkpoint_of, read_run, save_path
from ..checkpoint.start import hugging_face
from ..checkpoint.tracker import find_checkpoint
from ..errors import UserError
from ..lora.settings import Settings
from ..megatron.saved import SavedModel
from ..record import BUILD
from . import bridge
from .adapters import Merging, SavedAdapters, write_peft
from .card import card
from .check import open_model
from .config import FILE, read_config
from .cuts import shape_of
from .describe import GENERATION, config_of, generation_of, kind_of
from .sizes import Sizes
from .tables import FAMILIES, Row, rows_of
from .tokenizer import copy_tokenizer, special_ids
from .weights import Parts, given_parts, saved_parts, trained_dtype, wanted
from .writer import Outline, write_tensors

MARK = "sftc.json"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
MAX_SHARD = 5_000_000_000  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is exported: `iteration` None is the newest, `dtype` None that of the training; with `adapter` the adapters
    alone, else they are merged into the weights that they were trained beside.
    """

    run_path: Path
    iteration: int | None = None
    dtype: str | None = None
    max_shard: int = MAX_SHARD
    adapter: bool = False


def export(asked: Export, target: Path) -> str:
    """Write the directory `target`, replaced at once if it is an older export, and say what was written. UserError if
    the run, its checkpoint or what it was made from cannot be read, or if `target` is not sftc's.
    """
    if strangers := foreign(target):
        raise UserError(f"`{target / strangers[0]}` was not written by sftc", help="export into another directory")
    bundle, root = read_run(asked.run_path)
    folder, iteration = checkpoint_of(save_path(asked.run_path, bundle, root), asked.iteration)
    saved = SavedModel(folder)
    source = hugging_face(bundle.value("model.load"))
    source = None if source is None else root / source
    lora = Settings.of(bundle.value)
    is_foreign = source is not None and bridge.is_installed() and bridge.is_foreign(source)
    if lora is None and asked.adapter:
        raise UserError(f"`{asked.run_path}` trained all weights, there is no adapter", help="leave out --adapter")
    if lora is not None and is_foreign:
        raise UserError(f"adapters beside the weights in `{source}`, which Megatron-Bridge reads, cannot be exported")
    dtype = DTYPES[asked.dtype] if asked.dtype else trained_dtype(saved)
    word = str(dtype).removeprefix("torch.")

    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir(parents=True)
        template = (asked.run_path / BUILD / "chat_template.jinja") if "chat_template.jinja" in bundle.files else None
        copy_tokenizer(
            root / bundle.value("tokenizer.path"), scratch, template.read_text(encoding="utf-8") if template else None
        )
        if source is not None and is_foreign:
            bridge.export_checkpoint(source, folder, scratch)
        else:
            rows, sizes = _table(bundle, source), Sizes.of(bundle.value)
            adapters = SavedAdapters(saved, lora, rows, sizes) if lora is not None else None
            if asked.adapter:
                assert adapters is not None
                write_peft(scratch, adapters, base=None if source is None else str(source), dtype=dtype)
            else:
                tokens = special_ids(scratch)
                _write_json(scratch / FILE, config_of(bundle.value, source, word, tokens))
                _write_json(scratch / GENERATION, generation_of(source, tokens))
                with _parts(bundle, saved, adapters, rows, root) as parts:
                    _write_weights(scratch, parts, rows, sizes, dtype, asked.max_shard)
        about = card(bundle, iteration=iteration, dtype=word, adapter=asked.adapter)
        (scratch / "README.md").write_text(about, encoding="utf-8")
        files = sorted([*(path.name for path in scratch.iterdir()), MARK])
        mark = {"name": bundle.name, "manifest": bundle.digest, "iteration": iteration, "dtype": word, "files": files}
        _write_json(scratch / MARK, mark)
        _replace(scratch, target)
    except OSError as error:
        raise UserError(f"`{target}` cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return f"exported iteration {iteration} in {word} to `{target}`"


def is_exported(target: Path, *, manifest: str, iteration: int) -> bool:
    """Whether `target` is the export of that iteration of that build."""
    try:
        mark = json.loads((target / MARK).read_text(encoding="utf-8"))
        return bool(mark["manifest"] == manifest and mark["iteration"] == iteration)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def foreign(target: Path) -> list[str]:
    """What lies in `target` and is no file of an earlier export; the empty name if `target` is no directory."""
    if not target.exists() and not target.is_symlink():
        return []
    if not target.is_dir() or target.is_symlink():
        return [""]
    try:
        ours = set(json.loads((target / MARK).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    return sorted(path.name for path in target.iterdir() if path.name not in ours)


def _table(bundle: Bundle, source: Path | None) -> tuple[Row, ...]:
    """The rows of the model; `source` is the Hugging Face directory that it came from."""
    family = FAMILIES[kind_of(bundle.value)] if source is None else read_config(source)[1]
    tied = not bundle.value("model.untie_embeddings_and_output_weights")
    return rows_of(family, tied=tied, biases=bundle.value("model.add_bias_linear"))


@contextmanager
def _parts(
    bundle: Bundle, saved: SavedModel, adapters: SavedAdapters | None, rows: tuple[Row, ...], root: Path
) -> Iterator[Parts]:
    """The tensors to write. UserError at the end if adapters were merged into other weights than theirs."""
    sizes = Sizes.of(bundle.value)
    if adapters is None:
        yield saved_parts(saved, rows, sizes)
        return
    load = bundle.value("model.load")
    with ExitStack() as stack:
        if (source := hugging_face(load)) is not None:
            base = stack.enter_context(given_parts(open_model(root / source, bundle.value)))
        else:
            found = find_checkpoint(root / load)
            if found is None:
                raise UserError(f"`model.load: {load}` holds no Megatron checkpoint any more")
            base = saved_parts(SavedModel(found.folder), rows, sizes)
        merging = Merging(base, adapters)
        yield merging.parts
        merging.require_base()


def _write_weights(
    target: Path, parts: Parts, rows: tuple[Row, ...], sizes: Sizes, dtype: torch.dtype, max_shard: int
) -> None:
    found = wanted(rows, sizes)
    outlines = [
        Outline(name=name.format(**place), shape=shape_of(row, part, sizes))
        for row, place in found
        for part, (name, _) in enumerate(row.parts)
    ]
    tensors = (tensor for row, place in found for tensor in parts(row, place))
    write_tensors(target, outlines, tensors, dtype, max_shard)


def _replace(scratch: Path, target: Path) -> None:
    if not target.exists():
        scratch.rename(target)
        return
    old = scratch.with_suffix(".old")
    target.rename(old)
    scratch.rename(target)
    shutil.rmtree(old)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
