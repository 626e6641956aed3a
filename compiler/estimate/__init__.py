"""What a plan needs before anything runs: memory of each rank, FLOPs, time, disk. Pure functions of the plan.

Each formula says where it comes from; docs/estimate.md says what is assumed and what was measured.
"""

from dataclasses import dataclass

from ..hardware import Hardware, hardware_table
from ..plan import Plan
from .memory import RankMemory, rank_memory
from .sizes import Sizes, sizes_of
from .stages import stages
from .work import Disk, Duration, Work, disk_of, duration_of, work_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """All figures of one plan. `limit` is the memory of a device in bytes, None where nothing says how large it is."""

    plan: Plan
    sizes: Sizes
    hardware: Hardware | None
    limit: int | None
    stages: tuple[RankMemory, ...]
    work: Work
    duration: Duration | None
    disk: Disk

    @property
    def fullest(self) -> RankMemory:
        return max(self.stages, key=lambda stage: stage.total)

    @property
    def fits(self) -> bool | None:
        return None if self.limit is None else self.fullest.total <= self.limit


def estimate(plan: Plan, *, hardware: Hardware | None = None, limit: int | None = None) -> Estimate:
    """`hardware` takes the place of `launch.hardware`, `limit` (bytes) that of its memory."""
    if hardware is None and plan["launch.hardware"] is not None:
        hardware = hardware_table()[plan["launch.hardware"]]
    sizes = sizes_of(plan)
    work = work_of(plan, sizes)
    return Estimate(
        plan=plan,
        sizes=sizes,
        hardware=hardware,
        limit=limit if limit is not None or hardware is None else hardware.memory,
        stages=tuple(rank_memory(sizes, stage) for stage in stages(plan, sizes)),
        work=work,
        duration=duration_of(plan, sizes, work, hardware) if hardware else None,
        disk=disk_of(plan, sizes),
    )
