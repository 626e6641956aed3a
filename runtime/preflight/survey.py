"""Everything that a node can find out by itself."""

from ..bundle import Bundle
from ..checkpoint.owner import require_free
from . import devices as gpus
from .devices import devices
from .finding import Findings, together
from .places import SHARED, Markers, data, tokenizer, weights
from .room import disk, locked_memory, shared_memory
from .versions import versions


def survey(bundle: Bundle, markers: Markers) -> Findings:
    """The markers stay where they are for other nodes to see."""

    def paths(found: Findings) -> None:
        if SHARED in markers.folders:
            require_free(markers.folders[SHARED], bundle.name)
        markers.plant(found)
        if SHARED in markers.folders and not found.failed("paths"):
            disk(bundle, markers.folders[SHARED], found)

    found = Findings()
    found.facts["build"] = bundle.digest[:12]
    found.add("build", "ok", f"as compiled, manifest {bundle.digest[:12]}")
    checks = {
        "versions": lambda found: versions(bundle, found),
        "devices": lambda found: devices(bundle, found),
        "data": lambda found: data(bundle, found),
        "tokenizer": lambda found: tokenizer(bundle, found),
        "weights": lambda found: weights(bundle, found),
        "paths": paths,
    }
    found.take(together(checks, {"devices": gpus.LIMIT + 5}))
    on_gpus = found.facts.get("device") == "cuda"
    shared_memory(on_gpus and bundle.value("launch.nproc_per_node") > 1, found)
    locked_memory(on_gpus and bundle.value("launch.nnodes") > 1, found)
    return found
