"""An estimate as plain data, for `--format json`: sizes in bytes, times in seconds, with what was assumed."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from . import Estimate
from .advice import Advice
from .memory import CONTEXT, FRAGMENTS, GROUP
from .work import UTILIZATION


def to_json(found: Estimate, advice: Sequence[Advice]) -> dict[str, Any]:
    work, sizes = found.work, found.sizes
    return {
        "name": found.plan.name,
        "hardware": {**asdict(found.hardware), "peak": dict(found.hardware.peak)} if found.hardware else None,
        "device_memory": found.limit,
        "fits": found.fits,
        "fullest_rank": found.fullest.total,
        "layout": {name: getattr(sizes, name) for name in ("tp", "pp", "vpp", "cp", "dp", "ep", "etp", "world")},
        "stages": [{**asdict(stage), "total": stage.total} for stage in found.stages],
        "work": {**asdict(work), "tokens": work.tokens},
        "seconds_per_iteration": asdict(found.duration) if found.duration else None,
        "disk": asdict(found.disk),
        "advice": [{"changes": dict(one.changes), "fullest_rank": one.needs} for one in advice],
        "assumptions": {
            "context_bytes": 0 if sizes.on_cpu else CONTEXT,
            "bytes_per_kind_of_parallelism": 0 if sizes.on_cpu else GROUP,
            "fragments": 0 if sizes.on_cpu else FRAGMENTS,
            "utilization": list(UTILIZATION),
            "samples": "seq_length",
            "experts": "visited equally often" if sizes.rows else None,
            "not_followed": list(sizes.not_followed),
        },
    }
