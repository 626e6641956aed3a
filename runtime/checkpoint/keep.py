"""How many checkpoints stay: the newest ones that are complete."""

import re
import shutil
from pathlib import Path

from .tracker import find_checkpoint, is_complete

FOLDER = re.compile(r"iter_(\d{7,})")


def prune(root: Path, keep: int) -> list[int]:
    """Remove what is older than the `keep` newest complete checkpoints under `root`; returns those iterations.

    Nothing newer than what the tracker names counts, or is touched: it may still be being written. A checkpoint that is
    going loses its `metadata.json` first, so that one that is half gone is never taken for a whole one. OSError if one
    cannot be removed.
    """
    newest = find_checkpoint(root)
    if newest is None:
        return []
    found = {int(match[1]): path for path in root.iterdir() if (match := FOLDER.fullmatch(path.name))}
    whole = sorted(at for at, path in found.items() if at <= newest.iteration and is_complete(path))
    if len(whole) < keep:
        return []
    gone = sorted(at for at in found if at < whole[-keep])
    for at in gone:
        (found[at] / "metadata.json").unlink(missing_ok=True)
        shutil.rmtree(found[at])
    return gone
