"""Families that have no table here, handed over to Megatron-Bridge where the extra `bridge` is installed.

It makes a Megatron checkpoint of a Hugging Face directory, once, and a Hugging Face directory of a checkpoint. It runs
in a process of its own: it starts a process group, and needs far more than sftc does.
"""

import hashlib
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from ..checkpoint.tracker import find_checkpoint
from ..data.store import locked
from ..errors import UserError
from .files import read_json
from .tables import FAMILIES

IMPORT = "from megatron.bridge import AutoBridge; import sys; AutoBridge.import_ckpt(sys.argv[1], sys.argv[2])"
EXPORT = (
    "from megatron.bridge import AutoBridge; import sys; "
    "AutoBridge.from_hf_pretrained(sys.argv[1]).export_ckpt(sys.argv[2], sys.argv[3])"
)


def is_foreign(directory: Path) -> bool:
    """Whether `directory` holds a model of a family that only Megatron-Bridge may know."""
    path = directory / "config.json"
    return path.is_file() and read_json(path).get("model_type") not in FAMILIES


def is_installed() -> bool:
    return find_spec("megatron") is not None and find_spec("megatron.bridge") is not None


def converted(directory: Path, store: Path) -> Path:
    """Where the Megatron checkpoint of `directory` is, or will be. Its name follows from the files' names and sizes and
    from config.json.
    """
    facts = [f"{path.name} {path.stat().st_size}\n" for path in sorted(directory.glob("*.safetensors"))]
    key = hashlib.sha256("".join(facts).encode() + (directory / "config.json").read_bytes()).hexdigest()[:32]
    return store.with_name("bridge") / key


def import_checkpoint(directory: Path, store: Path) -> str:
    """Make the checkpoint of `converted` if it is not there, and say so. UserError if Megatron-Bridge fails."""
    target = converted(directory, store)
    with locked(target.parent, target.name, lambda: None):
        if target.is_dir() and find_checkpoint(target) is not None:
            return f"Megatron-Bridge has converted `{directory}` to `{target}` before"
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _run(IMPORT, directory, partial)
        partial.rename(target)
    return f"Megatron-Bridge converted `{directory}` to `{target}`; the recipe's `model` section has to agree with it"


def export_checkpoint(source: Path, checkpoint: Path, target: Path) -> None:
    """Write `checkpoint` as a Hugging Face model like that in `source`. UserError if Megatron-Bridge fails."""
    _run(EXPORT, source, checkpoint, target)


def _run(program: str, *places: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program, *map(str, places)], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(
            f"Megatron-Bridge failed on `{places[0]}`: {lines[-1] if lines else f'status {done.returncode}'}",
            help="what it can convert, and on which machines, is said in its own documentation",
        )
