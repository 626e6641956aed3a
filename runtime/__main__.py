"""What launch.sh starts: `prepare BUILD_DIR` and `preflight BUILD_DIR` once per node, then `watch BUILD_DIR -- torchrun
...`, and under torchrun `train BUILD_DIR` once per rank.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import process
from .errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: a user's or the machine's fault, reported; 70: a crash, with a traceback; 130: Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m sftc.runtime")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("eval", help="be one rank of `sftc eval`").add_argument("job", type=Path)
    for command, purpose in (
        ("prepare", "check the build dir and the start, turn the data into tokens"),
        ("preflight", "check this node and, with the others, all of them"),
        ("train", "be one rank of the training"),
        ("watch", "start torchrun, `-- torchrun ...`, and pass signals on to the ranks"),
    ):
        commands.add_parser(command, help=purpose).add_argument("build_dir", type=Path)
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:split])
    if options.command == "eval":
        return evaluate(options.job)
    if options.command == "watch":
        if not words[split + 1 :]:
            parser.error("watch: no command behind `--`")
        return watch(options.build_dir, words[split + 1 :])
    return {"prepare": prepare, "preflight": preflight, "train": train}[options.command](options.build_dir)


def prepare(build_dir: Path) -> int:
    """It ends with launch.sh, which a signal kills at once while it waits."""
    process.die_with_parent()

    def work() -> int:
        from .prepare import run

        run(build_dir)
        return 0

    return _reported(work)


def preflight(build_dir: Path) -> int:
    process.die_with_parent(signal.SIGTERM)  # which lets it remove what it has written to try a directory
    from .preflight.commands import run

    return run(build_dir)


def watch(build_dir: Path, command: Sequence[str]) -> int:
    """The statuses of watch.run."""

    def work() -> int:
        from .watch import run

        return run(build_dir, command)

    return _reported(work)


def _reported(work: Callable[[], int]) -> int:
    """What `work` returns, or 1 or 130 with a message."""
    try:
        return work()
    except UserError as error:
        from .progress import complain

        complain(error)
        return 1
    except KeyboardInterrupt:
        from .progress import say

        say("interrupted before the training; start again to go on")
        return 128 + signal.SIGINT


def train(build_dir: Path) -> int:
    def work() -> None:
        from .train import run

        run(build_dir)

    return _ranked(work)


def evaluate(job: Path) -> int:
    def work() -> None:
        from .answers.rank import run

        run(job)

    return _ranked(work)


def _ranked(work: Callable[[], None]) -> int:
    """What one rank does; its mistakes and crashes are told to who started it."""
    process.die_with_parent()
    process.speak_past_torchrun()
    process.keep_stderr_clean()
    try:
        work()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # how Megatron ends is SystemExit, and torch's CheckpointException is no Exception
        return process.fail(error)
    finally:
        process.hear_nothing()
        process.end_helpers()
    return 0


if __name__ == "__main__":
    sys.exit(main())
