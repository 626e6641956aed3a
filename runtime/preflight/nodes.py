"""The nodes of a run: their numbers, and what they have to agree on."""

import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..record import host_name
from .finding import Finding, Status
from .versions import SAME

# Seconds that clocks may differ. torchrun's c10d rendezvous takes a node for dead whose last sign of life, sent every
# 5 s, is 15 s old by the clock of another one (torch/distributed/elastic/rendezvous/dynamic_rendezvous.py).
SKEWED, BROKEN = 1.0, 10.0
# Facts that differ, the check that they belong to, and what helps.
AGREED = {
    "build": ("build", "copy one build dir to every node, or share it"),
    "Python": ("versions", SAME),
    "torch": ("versions", SAME),
    "Megatron-Core": ("versions", SAME),
    "Transformer Engine": ("versions", SAME),
    "sftc": ("versions", SAME),
    "device": ("devices", "give every node GPUs, or none"),
    "GPUs": ("devices", "nodes of one kind are as fast as the slowest of them only"),
    "prepared data": ("data", "the rows, the tokenizer or the chat template differ: share one directory of them"),
    "start": ("weights", "share `checkpoint.save` between the nodes"),
    "weights": ("weights", "files differ in number or size: share one directory of them"),
}
WARNS = {"GPUs"}  # differences that a run can live with


@dataclass(slots=True, kw_only=True)
class Node:
    """One node with what was found on it. `host` is None for a node that nobody has heard of."""

    number: int
    host: str | None
    findings: list[Finding] = field(default_factory=list)
    facts: Mapping[str, str] = field(default_factory=dict)

    def add(self, check: str, status: Status, text: str, help: str | None = None) -> None:
        self.findings.append(Finding(check=check, status=status, text=text, help=help))

    def failed(self, *checks: str) -> bool:
        """Whether one of these checks failed on it; any, without names."""
        return any(one.status == "failed" and (not checks or one.check in checks) for one in self.findings)

    @property
    def label(self) -> str:
        return f"{self.number} ({self.host})" if self.host else str(self.number)


def own_number(nnodes: int) -> int | None:
    """What whoever starts this node says: torchrun's users by NODE_RANK, Slurm by the number of the task. There is one
    task on each node, and the parts of a heterogeneous job are counted through. None if nobody says so.
    """
    found = os.environ.get("NODE_RANK")
    if found is None and os.environ.get("SLURM_NTASKS") == str(nnodes):
        found = os.environ.get("SLURM_PROCID")
    return int(found) if found is not None and found.isdecimal() else None


def own_host() -> str:
    """The name under which people know this node: Slurm's, or the machine's."""
    return os.environ.get("SLURMD_NODENAME") or host_name()


def numbered(stated: Sequence[int | None], nnodes: int) -> list[int]:
    """A number for each node, in the order of their arrival: what they state if that makes sense, else the order."""
    known = [number for number in stated if number is not None]
    makes_sense = len(known) == len(stated) == len(set(known)) and all(number < nnodes for number in known)
    return known if makes_sense else list(range(len(stated)))


def missing(numbers: Sequence[int], nnodes: int, waited: float, address: str) -> list[Node]:
    """The nodes that did not come to `address`, each with that as its finding."""
    absent = [number for number in range(nnodes) if number not in numbers]
    names = slurm_names() if absent else []
    text = f"did not come within {waited:g} s"
    help = "look at its output: has launch.sh ended there, or does it not reach the first node?"
    if address == "localhost" or address.startswith("127."):
        help = f"MASTER_ADDR is {address}, which every machine takes for itself: name the first node"
    return [
        Node(
            number=number,
            host=names[number] if len(names) == nnodes else None,
            findings=[Finding(check="nodes", status="failed", text=text, help=help)],
        )
        for number in absent
    ]


def slurm_names() -> list[str]:
    """The hosts of a job in the order of its tasks; none outside of one, or of one in several parts."""
    if "SLURM_JOB_NODELIST" not in os.environ or "SLURM_HET_SIZE" in os.environ:
        return []
    command = ["scontrol", "show", "hostnames"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []


def agree(nodes: Sequence[Node]) -> None:
    """Add a finding to every node that differs from most others, or from the first where there is no majority."""
    for name, (check, help) in AGREED.items():
        there = [node for node in nodes if name in node.facts]
        if len({node.facts[name] for node in there}) < 2:
            continue
        usual = Counter(node.facts[name] for node in there).most_common(1)[0][0]  # the first one seen, of several
        alike = [node for node in there if node.facts[name] == usual]
        others = f"on node {alike[0].label}" if len(alike) == 1 else f"on {len(alike)} of {len(nodes)} nodes"
        for node in there:
            value = node.facts[name]
            if value == usual:
                continue
            text = value if name == "start" else f"{name} {value}"
            is_small = name in WARNS or (name == "Python" and _release(value) == _release(usual))
            node.add(check, "warning" if is_small else "failed", f"{text}, and {usual} {others}", help)


def clock(skew: float, uncertain: float) -> Finding:
    """Of a node whose clock is `skew` seconds ahead of the first node's, give or take `uncertain`."""
    off = abs(skew) - uncertain
    if off <= SKEWED:
        return Finding(check="clock", status="ok", text=f"within {SKEWED:g} s of the first node's")
    direction = "ahead of" if skew > 0 else "behind"
    text = f"{abs(skew):.1f} s {direction} the first node's"
    if off > BROKEN:
        text += ", and torchrun takes nodes for dead whose clocks differ by more than that"
    return Finding(
        check="clock",
        status="failed" if off > BROKEN else "warning",
        text=text,
        help="synchronise the clocks: `timedatectl` or `chronyc tracking` on both nodes",
    )


def _release(version: str) -> list[str]:
    return version.split(".")[:2]
