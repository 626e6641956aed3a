"""metrics.jsonl: one object per logged iteration, one per evaluation, each iteration once."""

import json
import math
from pathlib import Path
from typing import Any, TypeGuard

from .atomic import replacing

FILE = "metrics.jsonl"
MACHINE = ("tokens_per_second", "tflops_per_rank", "memory_bytes")  # what depends on the machine
KEYS = ("iteration", "lm_loss", "learning_rate", "grad_norm", *MACHINE, "supervised_tokens")
BLOCK = 1 << 16  # bytes that are read at once from the end


class Metrics:
    """The file, open for appending. Every line is on disk (in the page cache) when `write` returns."""

    def __init__(self, run_path: Path, *, resumed_at: int) -> None:
        """Lines past `resumed_at` go: those iterations are trained again. A line that a kill tore goes as well."""
        run_path.mkdir(parents=True, exist_ok=True)
        path = run_path / FILE
        kept = [line for line in read(path) if line["iteration"] <= resumed_at]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            with replacing(path) as file:
                file.write(text)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, **fields: Any) -> dict[str, Any]:
        """The line as it stands in the file: non-finite numbers, which JSON has not, become null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
        self._file.write(json.dumps(finite) + "\n")
        return finite

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics file; none if there is no file."""
    if not path.is_file():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        # All at once takes half the time, and is possible where no line is torn.
        lines = json.loads(f"[{','.join(texts)}]")
    except ValueError:
        lines = [_parsed(text) for text in texts]
    return [line for line in lines if _is_line(line)]


def newest(path: Path, *keys: str) -> dict[str, dict[str, Any]]:
    """For each of `keys` the last whole line that has it, read from the end no further than needed. OSError if the file
    is there and cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return found
    with path.open("rb") as file:
        end, rest = file.seek(0, 2), b""
        while end and len(found) < len(keys):
            size = min(end, BLOCK)
            end = file.seek(end - size)
            head, *texts = (file.read(size) + rest).split(b"\n")
            # The first part may begin in the block before.
            rest, whole = (head, texts) if end else (b"", [head, *texts])
            for text in reversed(whole):
                wanted = [key for key in keys if key not in found and f'"{key}"'.encode() in text]
                line = _parsed(text.decode("utf-8", "replace")) if wanted else None
                found |= {key: line for key in wanted if _is_line(line) and key in line}
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_line(line: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(line, dict) and isinstance(line.get("iteration"), int)


def is_evaluated(run_path: Path, iteration: int) -> bool:
    """Whether the validation loss at `iteration` stands in the file."""
    return any(line["iteration"] == iteration and "valid_loss" in line for line in read(run_path / FILE))
