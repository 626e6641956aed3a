"""What Slurm is asked for."""

from collections.abc import Iterator
from typing import Any

from ..diagnostics import Diagnostic
from ..quoting import QuotingError, sbatch
from .context import Context


def without_slurm(context: Context) -> Iterator[Diagnostic]:
    if context["launch.launcher"] == "slurm":
        return
    for key in context.plan.values:
        if key.startswith("launch.slurm.") and context.stated(key):
            message = f"`{key}` is read only with launch.launcher: slurm"
            yield context.error("SFTC451", key, message, also=("launch.launcher",))


def chain(context: Context) -> Iterator[Diagnostic]:
    key, array = "launch.slurm.array", context["launch.slurm.array"]
    if array is None:
        return
    tasks, _, together = array.partition("%")
    if together != "1":
        message = f"`{array}` lets tasks run side by side, and all of them would save to {context['checkpoint.save']}"
        help = f'write "{tasks}%1"; runs that differ are recipes of their own'
        yield context.error("SFTC471", key, message, help=help)
    if context["launch.slurm.groups"] is not None:
        message = "Slurm knows no array of heterogeneous jobs"
        help = "leave `launch.slurm.array` out; `launch.slurm.max_requeues` lets one job go on in several starts"
        yield context.error("SFTC471", key, message, help=help)


def groups(context: Context) -> Iterator[Diagnostic]:
    counts = [group["nnodes"] for group in context["launch.slurm.groups"] or []]
    nnodes = context["launch.nnodes"]
    if counts and sum(counts) != nnodes:
        arithmetic = " + ".join(map(str, counts))
        message = f"the groups have {arithmetic} = {sum(counts)} nodes, and launch.nnodes is {nnodes}"
        yield context.error("SFTC472", "launch.slurm.groups", message, also=("launch.nnodes",))


def time_to_save(context: Context) -> Iterator[Diagnostic]:
    time, notice = context["launch.slurm.time"], context["launch.slurm.signal_seconds"]
    if time is not None and _seconds(time) <= notice:
        message = f"the time limit is {_seconds(time)} s, and the run is asked to leave {notice} s before it"
        help = "give the run more time, or lower `launch.slurm.signal_seconds`"
        yield context.error("SFTC473", "launch.slurm.time", message, also=("launch.slurm.signal_seconds",), help=help)
    stop = context["launch.stop_seconds"]
    if context["launch.launcher"] == "slurm" and notice < stop:
        message = f"Slurm ends the job {notice} s after asking it to leave, and the ranks may take {stop} s to save"
        help = f"`launch.stop_seconds: {notice}`, or a larger `launch.slurm.signal_seconds`"
        key, other = "launch.slurm.signal_seconds", "launch.stop_seconds"
        yield context.error("SFTC473", key, message, also=(other,), help=help)


def without_effect(context: Context) -> Iterator[Diagnostic]:
    if context["launch.launcher"] != "slurm":
        return
    why = "launch.device" if context["launch.device"] == "cpu" else "launch.slurm.gpu_option"
    if context[why] not in ("cpu", "none"):
        return
    for key in ("launch.slurm.gpu_option", "launch.slurm.gpu_type"):
        if key != why and context.stated(key):
            message = f"no GPU is asked for with {why}: {context[why]}, so `{key}` says nothing"
            yield context.error("SFTC474", key, message, also=(why,))


def unwritable(context: Context) -> Iterator[Diagnostic]:
    for key, value in _values(context):
        try:
            sbatch(value)
        except QuotingError:
            message = f"`{key}` holds a line break or a double quote, which no #SBATCH directive can carry"
            yield context.error("SFTC455", key, message, help="take it out")


def _values(context: Context) -> Iterator[tuple[str, Any]]:
    for key, item in context.plan.values.items():
        if key == "launch.slurm.groups":
            for number, group in enumerate(item.value or []):
                yield from ((f"{key}.{number}.{name}", value) for name, value in group.items())
        elif key.startswith("launch.slurm.") and item.value is not None:
            yield key, item.value


def _seconds(time: str) -> int:
    """sbatch's formats: minutes, minutes:seconds, H:M:S, D-H, D-H:M, D-H:M:S."""
    days, dash, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if not dash and len(parts) < 3:
        parts = [0, *parts]
    hours, minutes, seconds = [*parts, 0, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


RULES = (without_slurm, chain, groups, time_to_save, without_effect, unwritable)
