"""The build dir on disk: what state it is in, and how it is brought up to date. The only module that writes.

A file is ours if the SHA256SUMS that lies there names it, and if that was itself written by sftc: many a download has a
SHA256SUMS of its own. Ours and unedited is replaced freely; ours and edited only when the user insists; anything else
is left alone for good. Every file is staged beside its place and moved over it, the digests last: a crash leaves files
that are whole, and digests that do not match them.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .manifest import BUILD_TYPE, MANIFEST, ORIGINS, SUMS, read_sums
from .render import TEXT, Artifact


class State(StrEnum):
    """How one file of the build dir relates to what the recipe compiles to now."""

    CLEAN = "clean"
    MISSING = "missing"
    STALE = "stale"
    EDITED = "edited"
    FOREIGN = "foreign"
    LEFTOVER = "leftover"


# Written last, in this order: launch.sh and the next compile believe SHA256SUMS.
LAST = (ORIGINS, MANIFEST, SUMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The state of each file; `leftover` ones were compiled once and belong to the build dir no more."""

    states: Mapping[str, State]

    def having(self, *wanted: State) -> list[str]:
        """The paths in any of the wanted states, in order."""
        return [path for path, state in self.states.items() if state in wanted]

    @property
    def clean(self) -> bool:
        return not self.having(*(state for state in State if state is not State.CLEAN))


def scan(directory: Path, artifacts: Iterable[Artifact]) -> Drift:
    """Compare `directory` with `artifacts` by content. origins.json may lag behind: it is no part of what runs.

    Raises OSError for a path that the system does not take.
    """
    wanted = {artifact.path: artifact for artifact in artifacts}
    recorded = _recorded(directory)
    states = {path: _state(directory / path, artifact, recorded.get(path)) for path, artifact in wanted.items()}
    for path, digest in recorded.items():
        # Names come from a file on disk: only plain ones inside the directory are ever touched.
        if path not in wanted and Path(path).name == path and (content := _bytes(directory / path)) is not None:
            states[path] = State.LEFTOVER if _digest(content) == digest else State.EDITED
    return Drift(states=states)


def apply(directory: Path, artifacts: Iterable[Artifact], drift: Drift) -> list[str]:
    """Write what differs and remove leftovers; returns the paths written. Call only when nothing has to be refused.

    Raises OSError when the disk says no. Files that have the right bytes keep their time of modification.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for path in drift.having(State.LEFTOVER):
        (directory / path).unlink()
    ordered = sorted(artifacts, key=lambda item: LAST.index(item.path) if item.path in LAST else -1)
    written = []
    for artifact in ordered:
        target = directory / artifact.path
        if _bytes(target) != artifact.content:
            _replace(target, artifact)
            written.append(artifact.path)
        elif target.stat().st_mode & 0o777 != artifact.mode:
            target.chmod(artifact.mode)
    return written


def _recorded(directory: Path) -> dict[str, str]:
    """Path → sha256 of what sftc wrote there; empty for the two files that SHA256SUMS does not cover."""
    recorded = read_sums(_bytes(directory / SUMS) or b"")
    manifest = _bytes(directory / MANIFEST)
    if MANIFEST not in recorded or (manifest is not None and BUILD_TYPE.encode() not in manifest):
        return {}
    return recorded | dict.fromkeys((ORIGINS, SUMS), "")


def _state(path: Path, artifact: Artifact, recorded: str | None) -> State:
    """`recorded` is the digest of `_recorded`. What is no plain, readable file is never ours."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return State.MISSING
    content = _bytes(path)
    if not stat.S_ISREG(mode) or content is None:
        return State.FOREIGN
    if content == artifact.content:
        return State.CLEAN
    if recorded is None:
        return State.FOREIGN
    if not recorded:
        return State.CLEAN if artifact.path == ORIGINS else State.STALE
    return State.STALE if _digest(content) == recorded else State.EDITED


def _bytes(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        # A pipe would wait for a writer.
        return path.read_bytes() if path.is_file() else None
    return None


def write_file(target: Path, content: bytes, mode: int = TEXT) -> None:
    """Replace a file that is no artifact at once. OSError if it cannot be written."""
    _replace(target, Artifact(path=target.name, content=content, mode=mode))


def _replace(target: Path, artifact: Artifact) -> None:
    handle, staged = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(artifact.content)
            os.fchmod(file.fileno(), artifact.mode)
            file.flush()
            os.fsync(file.fileno())
        Path(staged).replace(target)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
