"""metrics.jsonl: one object per logged iteration, one per evaluation, each iteration once."""

import json
import math
from pathlib import Path
from typing import Any

from .atomic import replacing

FILE = "metrics.jsonl"
SPEEDS = ("tokens_per_second", "tflops_per_rank")  # what depends on the machine
KEYS = ("iteration", "lm_loss", "learning_rate", "grad_norm", *SPEEDS, "supervised_tokens")


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

    def write(self, **fields: Any) -> None:
        """Non-finite numbers, which JSON has not, become null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
        self._file.write(json.dumps(finite) + "\n")

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics file; none if there is no file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("iteration"), int):
            lines.append(line)
    return lines


def is_evaluated(run_path: Path, iteration: int) -> bool:
    """Whether the validation loss at `iteration` stands in the file."""
    return any(line["iteration"] == iteration and "valid_loss" in line for line in read(run_path / FILE))
