"""One node of a preflight, started as a process: `python preflight_node.py PLANTED BUILD_DIR`. PLANTED is JSON: what a
test puts in the place of what this machine has, for nodes that differ can only be had on several of them.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sftc.runtime.preflight import commands, finding, ranks, several, versions


def main(planted: dict[str, Any], build: Path) -> int:
    if "packages" in planted:
        found = versions.packages()
        versions.packages = lambda: {**found, **planted["packages"]}  # type: ignore[assignment]
    if "python" in planted:
        versions.platform.python_version = lambda: planted["python"]
    if "clock" in planted:
        now = several.epoch_seconds
        several.epoch_seconds = lambda: now() + planted["clock"]  # type: ignore[assignment]
    for name in ("REDUCING", "STILL", "LOADING"):
        if name in planted:
            setattr(ranks, name, planted[name])
    if "SLOW" in planted:
        finding.SLOW = planted["SLOW"]
    if "signal" in planted:
        load = ranks.Ranks.load

        def stopped(self: ranks.Ranks) -> Any:
            answer = load(self)
            for rank in self._ranks:
                os.kill(rank._child.pid, signal.Signals[planted["signal"]])
            return answer

        ranks.Ranks.load = stopped  # type: ignore[method-assign]
    if "reduces" in planted:
        several.Ranks = _Ranks  # type: ignore[assignment, misc]
    if "freeze" in planted:
        several.Preflight._follow = _frozen  # type: ignore[method-assign]
    return commands.show(build, as_json=True, colour=False) if planted.get("json") else commands.run(build)


class _Ranks:
    """Where no time is for processes that load torch: they have met and reduced."""

    def __init__(self, *_: Any) -> None: ...

    def load(self) -> None: ...

    def reduce(self, *_: Any) -> finding.Finding:
        return finding.Finding(check=ranks.CHECK, status="ok", text="planted")

    def end(self) -> None: ...


async def _frozen(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), Path(sys.argv[2])))
