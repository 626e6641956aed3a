"""Many launches of ranks after one import of Megatron: `python forked_ranks.py JOBS`.

JOBS is a JSON list of `[FOLDER, BUILD_DIR, RANKS]`; the data of each is prepared. All run, and `FOLDER/status` holds
the worst status of a job's ranks.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # PYTHONSAFEPATH leaves it out

from forked import fork, import_megatron, statuses
from ranks import free_port

from sftc.runtime import __main__ as runtime


def main(jobs):
    import_megatron()
    for folder, build, ranks in json.loads(Path(jobs).read_text()):
        common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        places = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
        ended = statuses([fork(folder, place, runtime.train, build) for place in places])
        Path(folder, "status").write_text(str(max(ended, key=abs)))


if __name__ == "__main__":
    main(sys.argv[1])
