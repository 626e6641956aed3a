"""The paths of a run, as this node sees them: what is read can be read, what is written can be written, really."""

import hashlib
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ..bundle import Bundle
from ..checkpoint.start import decide
from ..data import hub
from ..data.settings import DataSettings
from ..errors import UserError
from ..lock.inputs import LOAD, relative_to, rows_of, tokenizer_of, weights_of
from ..pointer import read_pointer
from ..record import Process, this_process
from .finding import Findings

MARKER = ".sftc-preflight-"
MARKED = re.compile(re.escape(MARKER) + "[0-9a-f]{32}")
LARGEST = 1024  # bytes of one
STALE = 86_400.0  # seconds after which one is left over wherever its preflight ran, which takes minutes and waits some
WRITTEN = ("checkpoint.save", "logging.run_path")
SHARED = WRITTEN[0]  # each rank writes its part of a checkpoint there
PATIENCE = 5.0  # seconds in which what another node wrote has to be seen: a network file system may lag


def data(bundle: Bundle, found: Findings) -> None:
    """The rows, and what has been prepared of them, by its key: every node must train on the same."""
    settings = DataSettings.from_plan(bundle.value, bundle.path)
    sources = [source for split in settings.splits().values() for source in split]
    if not sources:
        found.add("data", "skipped", "the recipe names no rows")
        return
    local = [source for source in sources if not hub.is_hub(source.path)]
    files = [file for source in local for file in rows_of(source, settings.is_pretrain).digested]
    _require_readable(files, "the path stands in the recipe's `data`")
    text = _count(files) + (f", {len(sources) - len(local)} on the hub" if len(local) < len(sources) else "")
    try:
        pointer = read_pointer(bundle)
    except UserError:
        found.add("data", "ok", f"{text}; not prepared yet, launch.sh does that")
        return
    store = Path(pointer["store"])
    _require_readable((path for path in store.iterdir() if path.is_file()), "see `data.store_path`")
    found.facts["prepared data"] = store.name[:12]
    found.add("data", "ok", f"{text}; prepared as {store.name[:12]}")


def tokenizer(bundle: Bundle, found: Findings) -> None:
    if bundle.value("data.train_data_path") is None and bundle.value("data.sources") is None:
        found.add("tokenizer", "skipped", "the recipe names no rows")
        return
    files = tokenizer_of(str(bundle.value("tokenizer.path"))).digested
    _require_readable(files, "see `tokenizer.path`")
    found.add("tokenizer", "ok", f"{_count(files)} in `{bundle.value('tokenizer.path')}`")


def weights(bundle: Bundle, found: Findings) -> None:
    """From what the run starts, and that it can be read."""
    start = decide(bundle, bundle.value("train.train_iters"))
    found.facts["start"] = start.line
    load = bundle.value(LOAD)
    if load is None or start.kind in ("resume", "complete"):
        found.add("weights", "ok", start.line)
        return
    one = weights_of(load)
    files = (*one.digested, *one.sized)
    _require_readable(files, "see `model.load`")
    sizes = "".join(f"{file.name} {file.stat().st_size}\n" for file in files)
    found.facts["weights"] = hashlib.sha256(sizes.encode()).hexdigest()[:12]
    found.add("weights", "ok", f"{start.line}, {_count(files)}")


class Markers:
    """A file in each directory that the run writes to: that it can be written here, and that other nodes see it."""

    def __init__(self, bundle: Bundle) -> None:
        values = {key: bundle.value(key) for key in WRITTEN}
        self.folders = {key: Path(value) for key, value in values.items() if value}
        self.name = MARKER + uuid.uuid4().hex
        self._made: list[Path] = []

    def plant(self, found: Findings) -> None:
        """Makes the directories, as the run would."""
        for key, folder in self.folders.items():
            try:
                missing = [path for path in (folder, *folder.parents) if not path.exists()]
                folder.mkdir(parents=True, exist_ok=True)
                self._made += missing
                with (folder / self.name).open("xb") as file:
                    file.write(json.dumps(asdict(this_process())).encode())
                    file.flush()
                    os.fsync(file.fileno())
                    _sweep(folder, os.fstat(file.fileno()).st_mtime)
            except OSError as error:
                reason = f"`{key}`: `{folder}` cannot be written: {error.strerror or error}"
                found.add("paths", "failed", reason, f"see `{key}`; {relative_to()}")
        if not found.failed("paths"):
            found.add("paths", "ok", f"{' and '.join(f'`{folder}`' for folder in self.folders.values())} written to")

    def sees(self, name: str, found: Findings) -> None:
        """Whether the marker `name` of the first node is where this node saves."""
        folder = self.folders[SHARED]
        deadline = time.monotonic() + PATIENCE
        while not (folder / name).exists():
            if time.monotonic() > deadline:
                found.add(
                    "shared",
                    "failed",
                    f"`{SHARED}`: `{folder}` (in `{Path.cwd()}`) is not the directory that the first node writes to",
                    "put it on a file system that all nodes share, under the same path",
                )
                return
            with suppress(OSError):  # listing it makes a network file system look again
                os.listdir(folder)  # noqa: PTH208
            time.sleep(0.2)
        found.add("shared", "ok", f"`{folder}` is the same directory on every node")

    def remove(self, *, folders: bool) -> None:
        """The files, and with `folders` also the directories that were made for them and are empty."""
        for folder in self.folders.values():
            with suppress(OSError):
                (folder / self.name).unlink()
        for folder in self._made if folders else ():
            with suppress(OSError):
                folder.rmdir()


def _sweep(folder: Path, now: float) -> None:
    """Remove what killed preflights have left. `now` is by the clock of the file system, as their times are."""
    with suppress(OSError):
        for path in folder.glob(f"{MARKER}*"):
            with suppress(OSError):  # another one may be removing it, too
                if MARKED.fullmatch(path.name) and _is_left(path, now):
                    path.unlink()


def _is_left(path: Path, now: float) -> bool:
    """Whether the preflight of a marker is gone: its process is seen to be, or it is too old. Others are nobody's."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        lives = Process(**json.loads(text)).lives_here
    except (ValueError, TypeError):
        if text not in ("", path.name):  # killed before a word; or of a time when they held their name
            return False
        lives = None
    return now - found.st_mtime > STALE if lives is None else not lives


def _require_readable(files: Iterable[Path], help: str) -> None:
    for path in files:
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            raise UserError(f"`{path}` cannot be read: {error.strerror or error}", help) from None


def _count(files: Iterable[Path] | Mapping[Path, object]) -> str:
    count = len(list(files))
    return f"{count:,} {'file' if count == 1 else 'files'} readable"
