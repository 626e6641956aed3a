"""How the ranks are started: the words behind `torchrun` and the environment, so that launch.sh only lists them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping

from .hardware import tunings
from .plan import Plan, Variable

# The recipe key behind each of torchrun's options.
WORD_KEYS = {
    "--nnodes": "launch.nnodes",
    "--nproc-per-node": "launch.nproc_per_node",
    "--standalone": "launch.nnodes",
    "--rdzv-backend": "launch.nnodes",
    "--max-restarts": "launch.max_restarts",
    "--log-dir": "logging.run_path",
}


MAX_CONNECTIONS = "CUDA_DEVICE_MAX_CONNECTIONS"
# How the reason of a variable ends that the named hardware wants.
BY_HARDWARE = "(launch.hardware)"


def torchrun_words(plan: Plan) -> tuple[str, ...]:
    """torchrun's options, one word each. launch.sh adds the meeting point of several nodes."""
    nnodes = plan["launch.nnodes"]
    meeting = ("--standalone",) if nnodes == 1 else ("--rdzv-backend=c10d",)
    return (
        f"--nnodes={nnodes}",
        f"--nproc-per-node={plan['launch.nproc_per_node']}",
        *meeting,
        f"--max-restarts={plan['launch.max_restarts']}",
        f"--log-dir={plan['logging.run_path'].rstrip('/')}/logs",
        "--redirects=1",
    )


def port(plan: Plan) -> int:
    """Where the nodes meet unless MASTER_PORT says otherwise: 20000 to 39999, the same for the same name everywhere."""
    return 20000 + int.from_bytes(hashlib.sha256(plan.name.encode()).digest()[:8]) % 20000


def environment(plan: Plan) -> Iterator[Variable]:
    """The variables that launch.sh exports, sftc's own first; `launch.environment` may replace those of a default."""
    stated: dict[str, str] = plan["launch.environment"]
    for variable in _own(plan):
        if variable.name not in stated:
            yield variable
    for name, value in stated.items():
        yield Variable(name=name, value=value, reason=f"launch.environment.{name}")


def _own(plan: Plan) -> Iterator[Variable]:
    yield Variable(name="PYTHONSAFEPATH", value="1", reason="import installed packages only, no folder that lies here")
    yield Variable(name="PYTHONUNBUFFERED", value="1", reason="the logs are complete when a rank dies")
    if plan["launch.container.engine"] is not None:
        yield Variable(
            name="HOME", value="/tmp", reason="the caller's home is not in the container, and caches need one"
        )
    if plan["launch.max_restarts"]:
        # Since torch 2.5 the ranks share torchrun's store, in which the attempt before has left its addresses.
        reason = "ranks that are started again find each other in a new store, and no address of dead ones"
        yield Variable(name="TORCH_DISABLE_SHARE_RDZV_TCP_STORE", value="1", reason=reason)
    tuned = list(_tuned(plan))
    if _is_split(plan) and plan["launch.device"] != "cpu" and MAX_CONNECTIONS not in [one.name for one in tuned]:
        reason = "keeps communication and compute in order on NVIDIA GPUs before Blackwell"
        yield Variable(name=MAX_CONNECTIONS, value="1", reason=reason)
    yield from tuned
    # Two OpenMP threads on a busy two-core machine were measured 15 times slower than on an idle one.
    reason = "one compute thread per rank: the same sums on every machine, no stalls on a busy one"
    yield Variable(name="OMP_NUM_THREADS", value="1", reason=reason)


def _is_split(plan: Plan) -> bool:
    return bool(plan["parallel.tensor_model_parallel_size"] > 1 or plan["parallel.context_parallel_size"] > 1)


def _overlaps(plan: Plan) -> bool:
    hidden = plan["parallel.overlap_grad_reduce"] or plan["parallel.overlap_param_gather"]
    return plan["model.transformer_impl"] == "transformer_engine" and bool(hidden)


# What `when` of a variable in schema/hardware.json stands for.
CONDITIONS: Mapping[str | None, Callable[[Plan], bool]] = {
    None: lambda _: True,
    "split": _is_split,
    "overlap": _overlaps,
}


def _tuned(plan: Plan) -> Iterator[Variable]:
    """What the vendor of the named hardware asks for."""
    if plan["launch.device"] == "cpu":
        return
    for one in tunings():
        if plan["launch.hardware"] in one.devices and CONDITIONS[one.when](plan):
            yield Variable(name=one.name, value=one.value, reason=f"{one.reason} {BY_HARDWARE}")
