"""Run by a test in a process of its own: give each argument file to Megatron's own parser and validator.

python accept_arguments.py FILE:WORLD_SIZE...     prints one JSON object, file → the parsed arguments or the complaint
"""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from sftc.runtime import cpu
from sftc.runtime.megatron import read_argument_file


def main() -> None:
    cpu.activate()
    from megatron.training.arguments import add_megatron_arguments, validate_args

    answers = {}
    for item in sys.argv[1:]:
        name, _, world_size = item.rpartition(":")
        words = read_argument_file(Path(name))
        supplement = Path(name).with_name("megatron.cpu.args")
        if supplement.is_file():
            words += read_argument_file(supplement)
        os.environ |= {"WORLD_SIZE": world_size, "RANK": "0", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
        with contextlib.redirect_stdout(sys.stderr):
            try:
                parser = add_megatron_arguments(argparse.ArgumentParser(allow_abbrev=False))
                args = parser.parse_args(words)
                args.rank, args.world_size = 0, int(world_size)
                validate_args(args, {})
                found = {key: value for key, value in vars(args).items() if isinstance(value, int | float | str)}
                answers[name] = {"accepted": True, "args": found}
            except (AssertionError, ValueError, SystemExit) as error:
                answers[name] = {"accepted": False, "complaint": f"{type(error).__name__}: {error}"}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
