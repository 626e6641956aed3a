"""Many launches of ranks after one import of Megatron: `python forked_ranks.py JOBS`.

JOBS is a JSON list of `[FOLDER, BUILD_DIR, RANKS]`; the data of each is prepared. All run, and `FOLDER/status` holds
the worst status of a job's ranks.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # PYTHONSAFEPATH leaves it out

from forked import import_megatron, train


def main(jobs):
    import_megatron()
    for folder, build, ranks in json.loads(Path(jobs).read_text()):
        Path(folder, "status").write_text(str(max(train(folder, build, ranks), key=abs)))


if __name__ == "__main__":
    main(sys.argv[1])
