"""metrics.jsonl: one object per logged iteration, one per evaluation, one per evaluation with answers; each once."""

import json
import math
from pathlib import Path
from typing import Any

from .appended import Line, appending, is_line, lines, parsed

FILE = "metrics.jsonl"
MACHINE = ("tokens_per_second", "tflops_per_rank", "memory_bytes")  # what depends on the machine
KEYS = ("iteration", "lm_loss", "learning_rate", "grad_norm", *MACHINE, "supervised_tokens")
PREFIX = "valid_"  # of what an evaluation measures
LOSS = f"{PREFIX}loss"
ANSWERED = f"{PREFIX}answers"  # is in every line of an evaluation with answers, which has no loss
BLOCK = 1 << 16  # bytes that are read at once from the end


class Metrics:
    """The file, open for appending. Every line is on disk (in the page cache) when `write` returns."""

    def __init__(self, run_path: Path, *, resumed_at: int, evaluates: bool = False) -> None:
        """Lines past `resumed_at` go: those iterations are trained again. A line that a kill tore goes as well.

        evaluates: the evaluation at `resumed_at` is made again, of which one of two lines may be there.
        """
        unless = _of_evaluation if evaluates else lambda _: False
        self._file = appending(run_path / FILE, resumed_at=resumed_at, unless=unless)

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
    try:
        # All at once takes half the time, and is possible where no line is torn.
        found = json.loads(f"[{','.join(path.read_text(encoding='utf-8', errors='replace').splitlines())}]")
    except (ValueError, RecursionError):
        return list(lines(path))
    return [line for line in found if is_line(line)]


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
                line = parsed(text.decode("utf-8", "replace")) if wanted else None
                found |= {key: line for key in wanted if line is not None and key in line}
    return found


def is_evaluated(run_path: Path, iteration: int, *, answers: bool = False) -> bool:
    """Whether the validation loss at `iteration` stands in the file, and the scores of its answers, if there have to be
    `answers`.
    """
    found = [line for line in read(run_path / FILE) if line["iteration"] == iteration]
    return all(any(key in line for line in found) for key in (LOSS, *([ANSWERED] if answers else [])))


def _of_evaluation(line: Line) -> bool:
    return LOSS in line or ANSWERED in line
