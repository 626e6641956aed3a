"""The directives of launch.sbatch, and the recipe key behind each of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from .plan import Plan
from .quoting import SbatchWord, sbatch

# Options that hold for a whole job. Every other one holds for the nodes of one group.
OF_THE_JOB = ("output", "dependency", "array")
OF_THE_NODES = (
    "partition",
    "account",
    "qos",
    "reservation",
    "time",
    "cpus_per_task",
    "mem",
    "exclusive",
    "constraint",
    "nodelist",
    "exclude",
)

# The recipe key behind an option that is not spelled like its key; without one, why sftc sets it.
KEYS = {
    "job-name": "name",
    "nodes": "launch.nnodes",
    "gpus-per-node": "launch.nproc_per_node",
    "gres": "launch.nproc_per_node",
    "signal": "launch.slurm.signal_seconds",
    "requeue": "launch.slurm.max_requeues",
    "no-requeue": "launch.slurm.max_requeues",
}
REASONS = {
    "ntasks-per-node": "one torchrun on each node",
    "open-mode": "a requeued job goes on in its log",
    "kill-on-invalid-dep": "a job that can never start does not wait for ever",
}


def directives(plan: Plan) -> list[SbatchWord]:
    """What stands behind `#SBATCH` in each line; the groups of a heterogeneous job are parted by `hetjob`."""
    return [_word(option, value) for option, value in _options(plan)]


def last_group(plan: Plan) -> int:
    """The number of the last group of nodes, counted from 0 as srun does."""
    return len(plan["launch.slurm.groups"] or [{}]) - 1


def _word(option: str, value: str | int | None) -> SbatchWord:
    return SbatchWord(option if value is None else f"{option}={sbatch(value)}")


def _options(plan: Plan) -> Iterator[tuple[str, str | int | None]]:
    own = {key: plan[f"launch.slurm.{key}"] for key in (*OF_THE_NODES, *OF_THE_JOB, "gpu_type")}
    groups = plan["launch.slurm.groups"] or [{"nnodes": plan["launch.nnodes"]}]
    yield "--job-name", plan.name
    yield from _of_nodes(plan, own | groups[0])
    yield from ((f"--{key}", own[key]) for key in OF_THE_JOB if own[key] is not None)
    yield "--open-mode", "append"
    yield "--kill-on-invalid-dep", "yes"
    yield "--signal", f"B:USR1@{plan['launch.slurm.signal_seconds']}"
    yield "--requeue" if plan["launch.slurm.max_requeues"] else "--no-requeue", None
    for group in groups[1:]:
        yield "hetjob", None
        yield from _of_nodes(plan, own | group)


def _of_nodes(plan: Plan, asked: Mapping[str, Any]) -> Iterator[tuple[str, str | int | None]]:
    yield "--nodes", asked["nnodes"]
    yield "--ntasks-per-node", 1
    count = ":".join(str(part) for part in (asked["gpu_type"], plan["launch.nproc_per_node"]) if part is not None)
    option = plan["launch.slurm.gpu_option"] if plan["launch.device"] != "cpu" else "none"
    if option != "none":
        yield f"--{option}", f"gpu:{count}" if option == "gres" else count
    for key in OF_THE_NODES:
        if asked[key] is True:
            yield f"--{key}", None
        elif asked[key] not in (None, False):
            yield f"--{key.replace('_', '-')}", asked[key]
