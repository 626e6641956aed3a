"""Room on disks, in /dev/shm and in locked memory."""

import math
import os
import resource
from pathlib import Path

from ..bundle import Bundle
from ..checkpoint.keep import FOLDER
from ..checkpoint.tracker import is_complete
from ..errors import UserError
from ..launch import length
from ..pointer import read_pointer
from .finding import Findings

SHM = Path("/dev/shm")
SHM_WANTED = 1 << 30  # bytes; NCCL's guide asks for so much where several GPUs of a node talk to each other
INFINIBAND = Path("/sys/class/infiniband")
STATUS = Path("/proc/self/status")
IPC_LOCK = 1 << 14  # capabilities(7): may lock memory beyond the limit


def disk(bundle: Bundle, folder: Path, found: Findings) -> None:
    """Whether the checkpoints to come fit beside what is there. `folder` exists and is where they go.

    Sizes are those of `sftc estimate`, from plan.json. Free is what this user may have: quotas that the file system
    knows of count, and blocks that are kept for root do not.
    """
    estimated = bundle.plan.get("disk")
    if estimated is None:
        found.add("disk", "skipped", "plan.json says nothing of the size: compile again")
        return
    present = sum(1 for path in folder.iterdir() if FOLDER.fullmatch(path.name) and is_complete(path))
    count = _count(bundle, estimated)
    due = max(0, (count or 1) - present) + (1 if estimated["is_pruned"] else 0)
    each, free = estimated["checkpoint"], free_bytes(folder)
    at_least = "" if count is not None else "at least "
    what = f"{at_least}{due} {'checkpoint' if due == 1 else 'checkpoints'} to come of {size(each)}"
    if due != 1:
        what += f", {size(due * each)} in all"
    text = f"{what}; {size(free)} free in `{folder}`"
    if free >= due * each:
        found.add("disk", "ok", text)
        return
    found.add(
        "disk",
        "failed",
        text,
        f"make room for {size(due * each - free)} more, keep fewer (`checkpoint.keep`), or save elsewhere "
        "(`checkpoint.save`)",
    )


def _count(bundle: Bundle, estimated: dict[str, int | None]) -> int | None:
    """How many checkpoints stay; None if that is not known before the data is prepared."""
    if estimated["count"] is not None:
        return estimated["count"]
    try:
        iterations = length(bundle, read_pointer(bundle)).iterations
    except UserError:
        return None
    return math.ceil(iterations / (bundle.value("checkpoint.save_interval") or iterations))


def shared_memory(has_peers: bool, found: Findings) -> None:
    """`has_peers`: several GPUs of this node talk through it."""
    try:
        free = free_bytes(SHM)
    except OSError as error:
        found.add("shm", "warning", f"`{SHM}` cannot be used: {error.strerror}", "mount a tmpfs there")
        return
    if has_peers and free < SHM_WANTED:
        text = f"{size(free)} free in `{SHM}`, and NCCL wants {size(SHM_WANTED)}"
        found.add("shm", "warning", text, "in a container: --shm-size=1g or more, or --ipc=host")
        return
    found.add("shm", "ok", f"{size(free)} free in `{SHM}`")


def locked_memory(uses_network: bool, found: Findings) -> None:
    """`uses_network`: GPUs of several nodes talk to each other, over InfiniBand if there is any."""
    try:
        cards = sorted(path.name for path in INFINIBAND.iterdir())
    except OSError:
        cards = []
    if not uses_network or not cards:
        why = "no InfiniBand here" if uses_network else "no GPUs of several nodes"
        found.add("memlock", "skipped", why)
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY or _may_lock():
        found.add("memlock", "ok", f"{', '.join(cards)}, no limit on locked memory")
        return
    found.add(
        "memlock",
        "warning",
        f"locked memory is limited to {size(limit)}, and InfiniBand ({', '.join(cards)}) locks its buffers",
        "`ulimit -l unlimited` where the job starts (Slurm: `LimitMEMLOCK=infinity` for slurmd; a container: "
        "--ulimit memlock=-1)",
    )


def _may_lock() -> bool:
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & IPC_LOCK)
    return False


def free_bytes(folder: Path) -> int:
    """OSError."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def size(count: float) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
