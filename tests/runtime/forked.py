"""Many jobs of the runtime after one import of Megatron, which takes longer than most of them.

    python forked.py JOBS

JOBS is a JSON list of `[FOLDER, BUILD_DIR, RANKS]`. Each job is what launch.sh does: `prepare`, then RANKS processes of
`train`. They run in FOLDER one job after the other, as forks of a process that has imported everything and done
nothing. What a job says goes to `FOLDER/stderr`, what Megatron prints to `FOLDER/stdout`, the worst status of its
processes to `FOLDER/status`.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out

from ranks import free_port

from sftc.runtime import __main__ as runtime


def import_megatron():
    """Not at the top: the helper that Megatron spawns at a save imports this file again, and has no need of it."""
    from sftc.runtime import cpu

    cpu.activate()

    import megatron.core.models.gpt
    import megatron.training.training  # noqa: F401

    import sftc.runtime.model  # noqa: F401


def fork(folder, variables, command, build):
    """The id of a new process that runs `command`, a function of the build dir, and ends with its status."""
    child = os.fork()
    if child:
        return child
    os.chdir(folder)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    os.environ.update(variables)
    status = 70
    try:
        status = command(Path(build))
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(status)
    return 0


def statuses(children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def train(folder, build, ranks):
    """The statuses of the ranks of one job."""
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    places = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    return statuses([fork(folder, place, runtime.train, build) for place in places])


def main(jobs):
    import_megatron()
    for folder, build, ranks in json.loads(Path(jobs).read_text()):
        ended = statuses([fork(folder, {}, runtime.prepare, build)])
        if not any(ended):
            ended = train(folder, build, ranks)
        Path(folder, "status").write_text(str(max(ended, key=abs)))


if __name__ == "__main__":
    main(sys.argv[1])
