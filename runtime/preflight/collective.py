"""`python -m sftc.runtime.preflight.collective DEVICE`: a rank of an all-reduce that shows whether ranks meet.

Says on stdout, a JSON object per line, how far it is: `loaded`, `met`, `reduced`; and every second that it is alive,
also while it waits for others. Between the first two it reads from stdin, as one JSON object, where to meet whom. The
process that started it sets the limits.
"""

import json
import sys
import threading
from datetime import timedelta
from typing import Any

from .. import process

BEAT = 1.0  # seconds
COUNT = 1 << 20  # numbers that are added up: 4 MiB, which go through the network and not through its shortcuts


def main() -> None:
    process.die_with_parent()
    threading.Thread(target=_beat, daemon=True).start()
    try:
        import torch
        import torch.distributed as dist

        device = torch.device(sys.argv[1])
        if device.type == "cuda":
            torch.cuda.set_device(device)
        ones = torch.ones(COUNT, device=device)  # on a GPU this takes seconds the first time
        _say(stage="loaded")
        line = sys.stdin.readline()
        if line:  # else nobody goes on
            _reduce(dist, ones, json.loads(line))
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        _say(error=f"{type(error).__name__}: {error}".splitlines()[0])
        sys.exit(1)


def _reduce(dist: Any, ones: Any, told: dict[str, Any]) -> None:
    """ones: a tensor [n] on the device; told: host and port of the first rank, rank and world, the backend, and seconds
    to wait for others.
    """
    limit = timedelta(seconds=told["seconds"])
    store = dist.TCPStore(told["host"], told["port"], told["world"], told["rank"] == 0, timeout=limit)
    dist.init_process_group(
        told["backend"],
        store=store,
        rank=told["rank"],
        world_size=told["world"],
        timeout=limit,
        device_id=ones.device if ones.device.type == "cuda" else None,
    )
    _say(stage="met")
    dist.all_reduce(ones)
    if not bool((ones == told["world"]).all()):  # which waits for a GPU
        raise ValueError(f"the sum over {told['world']} ranks came out wrong")
    _say(stage="reduced")
    dist.barrier()  # or the first one would close the store on the others
    dist.destroy_process_group()


def _say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")  # at once: two threads speak
    sys.stdout.flush()


def _beat() -> None:
    while True:
        _say(beat=True)
        threading.Event().wait(BEAT)


if __name__ == "__main__":
    main()
