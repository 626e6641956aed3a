"""What a run directory says of its build, of where it was started, and of its checkpoints."""

import json
from pathlib import Path

from ..bundle import Bundle, read_bundle
from ..errors import UserError
from ..record import BUILD
from ..record import FILE as RECORD
from .tracker import find_checkpoint, is_complete


def read_run(run_path: Path) -> tuple[Bundle, Path]:
    """The build that the run was trained by, as reviewed, and the directory in which it was started."""
    path = run_path / RECORD
    if not path.is_file():
        raise UserError(f"`{run_path}` is no run: it has no `{RECORD}`", help="name the recipe's `logging.run_path`")
    record = json.loads(path.read_text(encoding="utf-8"))
    if not (run_path / BUILD).is_dir():
        raise UserError(f"`{run_path}` has no copy of its build (`{BUILD}/`)", help="launch it again, with this sftc")
    bundle = read_bundle(run_path / BUILD)
    if record.get("manifest") != bundle.digest:
        raise UserError(f"`{run_path / BUILD}` is not the build that `{path}` names", help="launch the run again")
    return bundle, Path(record["starts"][-1]["directory"])


def save_path(run_path: Path, bundle: Bundle, root: Path) -> Path:
    """Beside the run where it was there from the start, so that a run directory can be moved."""
    save, logged = Path(bundle.value("checkpoint.save")), Path(bundle.value("logging.run_path"))
    return run_path / save.relative_to(logged) if save.is_relative_to(logged) else root / save


def checkpoint_of(save: Path, iteration: int | None) -> tuple[Path, int]:
    newest = find_checkpoint(save)
    if newest is None:
        raise UserError(f"`{save}` holds no checkpoint", help="the run has to save one first")
    wanted = newest.iteration if iteration is None else iteration
    folder = save / f"iter_{wanted:07d}"
    if not is_complete(folder):
        there = ", ".join(str(int(path.name[5:])) for path in sorted(save.glob("iter_*")) if is_complete(path))
        raise UserError(f"there is no checkpoint of iteration {wanted} in `{save}`", help=f"there are {there}")
    return folder, wanted
