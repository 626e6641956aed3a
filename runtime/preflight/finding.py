"""What a check found on a node, in words that are the same on every node that is alike: the table groups by them."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..errors import UserError

type Status = Literal["ok", "skipped", "warning", "failed"]

# In the order in which they are shown.
CHECKS = (
    "nodes",
    "port",
    "build",
    "versions",
    "devices",
    "data",
    "tokenizer",
    "weights",
    "paths",
    "shared",
    "disk",
    "shm",
    "memlock",
    "clock",
    "all-reduce",
)
# What helps with a failure that says nothing of that itself.
HELP = {
    "versions": "give every node the environment in which sftc[runtime] is installed",
    "devices": "see `nvidia-smi`",
    "data": "see `data` in the recipe; paths are relative to where launch.sh is started, or to SFTC_ROOT",
    "tokenizer": "see `tokenizer.path`; it is relative to where launch.sh is started, or to SFTC_ROOT",
    "weights": "see `model.load` and `checkpoint.save`",
    "paths": "see `checkpoint.save` and `logging.run_path`",
    "shared": "see `checkpoint.save`",
}
SLOW = 15.0  # seconds after which a file system counts as one that does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`text` says what was found, with its numbers; `help` what to do about it, in one line."""

    check: str
    status: Status
    text: str
    help: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(check: str, error: UserError) -> "Finding":
        message = "; ".join(line.strip() for line in error.message.splitlines())
        return Finding(check=check, status="failed", text=message, help=error.help or HELP[check])


@dataclass(slots=True)
class Findings:
    """All that one node found. `facts` are what the nodes have to agree on, by name."""

    items: list[Finding] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def add(self, check: str, status: Status, text: str, help: str | None = None) -> None:
        self.items.append(Finding(check=check, status=status, text=text, help=help))

    def failed(self, *checks: str) -> bool:
        """Whether one of these checks failed here."""
        return any(item.status == "failed" and item.check in checks for item in self.items)

    def take(self, other: "Findings") -> None:
        self.items += other.items
        self.facts |= other.facts


def together(checks: Mapping[str, Callable[[Findings], None]], seconds: Mapping[str, float]) -> Findings:
    """What the checks find, each in a thread of its own. A UserError or an OSError is a finding. A check that has not
    ended after its `seconds`, SLOW if it has none, is left behind: a file system that hangs lets nobody go.
    """
    found = {name: Findings() for name in checks}
    raised: dict[str, BaseException] = {}

    def run(name: str) -> None:
        try:
            checks[name](found[name])
        except UserError as error:
            found[name].items.append(Finding.of(name, error))
        except OSError as error:
            where = f"`{error.filename}`: " if error.filename is not None else ""
            found[name].add(name, "failed", f"{where}{error.strerror or error}", HELP[name])
        except BaseException as error:
            raised[name] = error

    threads = {name: threading.Thread(target=run, args=(name,), daemon=True) for name in checks}
    began = time.monotonic()
    for thread in threads.values():
        thread.start()
    whole = Findings()
    for name, thread in threads.items():
        limit = seconds.get(name, SLOW)
        thread.join(max(0.0, began + limit - time.monotonic()))
        if thread.is_alive():
            whole.add(name, "failed", f"not answered within {limit:g} s", "look whether a file system hangs here")
            continue
        if name in raised:
            raise raised[name]
        whole.take(found[name])
    return whole
