"""What `sftc eval` asks of its ranks: a file that the command writes and every rank reads."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULT = "eval.json"
SIZES = ("tensor_model", "pipeline_model", "context", "expert_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An evaluation of checkpoint `iteration` of the run in `run_path`, which lies under `save`, on the validation rows
    of the prepared data in `store`: `samples` of them, None for all. Iteration 0 are the weights that the run began
    with. `data` is what the rows are called. What else is None is as the recipe has it, or as its schema's defaults.
    The result is written into the directory `output`. Paths are absolute.
    """

    run_path: str
    save: str
    iteration: int
    store: str
    data: str
    output: str
    samples: int | None = None
    max_new_tokens: int | None = None
    answer_pattern: str | None = None

    @staticmethod
    def read(path: Path) -> "Job":
        return Job(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def world_size(value: Callable[[str], Any]) -> int:
    """The ranks of one copy of the model, or of as many copies as share its experts."""
    tensor, stages, context, experts = (int(value(f"parallel.{name}_parallel_size")) for name in SIZES)
    expert_tensor = int(value("parallel.expert_tensor_parallel_size") or tensor)
    return stages * math.lcm(tensor * context, experts * expert_tensor if experts > 1 else 1)


def copies(value: Callable[[str], Any]) -> int:
    """How many copies of the model those ranks are."""
    return world_size(value) // math.prod(int(value(f"parallel.{name}_parallel_size")) for name in SIZES[:3])
