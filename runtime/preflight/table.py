"""What was found, for people and for machines: results that are alike are one, with the nodes that they are of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from .finding import CHECKS, Finding
from .nodes import Node

TITLES = ("check", "result", "nodes", "")
NAMED = 3  # so many nodes of a group are called by their names too
GROUPS = 6  # that differ in their words, of one check and result; the others are only counted
COLOURS = {"failed": 31, "warning": 33, "ok": 32, "skipped": 90}  # SGR
WORST = ("failed", "warning", "ok", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One result, and the nodes that it is of."""

    finding: Finding
    nodes: tuple[Node, ...]


def groups(nodes: Sequence[Node]) -> list[Group]:
    """In the order of CHECKS, the worst first. What is fine counts as alike, whatever its figures are."""
    found: dict[tuple[str, ...], list[tuple[Finding, Node]]] = {}
    for node in nodes:
        spoiled = {one.check for one in node.findings if one.status in ("failed", "warning")}
        for one in node.findings:
            if one.status in ("ok", "skipped") and one.check in spoiled:
                continue
            key = (one.check, one.status) if one.status in ("ok", "skipped") else (one.check, one.status, one.text)
            found.setdefault(key, []).append((one, node))
    made = [_group(members) for members in found.values()]
    return sorted(made, key=lambda group: (CHECKS.index(group.finding.check), WORST.index(group.finding.status)))


def _group(members: Sequence[tuple[Finding, Node]]) -> Group:
    first, node = members[0]
    if len({one.text for one, _ in members}) > 1:
        first = replace(first, text=f"{first.text} (node {node.number})")
    return Group(finding=first, nodes=tuple(node for _, node in members))


def table(nodes: Sequence[Node], *, whole: bool = True, colour: bool = False) -> str:
    """A line for each group under a line of titles, help below; without `whole` only what is not fine."""
    rows: list[tuple[str, ...]] = [TITLES]
    shown = [group for group in _few(groups(nodes)) if whole or group.finding.status in ("failed", "warning")]
    last = ""
    for group, below in pairwise([*shown, None]):
        assert group is not None
        one = group.finding
        rows.append((one.check if one.check != last else "", one.status, span(group.nodes, len(nodes)), one.text))
        is_said_below = below is not None and (below.finding.check, below.finding.help) == (one.check, one.help)
        if one.help and not is_said_below:
            rows.append(("", "", "", f"help: {one.help}"))
        last = one.check
    columns = (0, 1) if len(nodes) == 1 else (0, 1, 2)
    widths = {at: max(len(row[at]) for row in rows) for at in columns}

    def cell(row: tuple[str, ...], at: int) -> str:
        text = row[at].ljust(widths[at])
        return f"\033[{COLOURS[row[at]]}m{text}\033[0m" if colour and row[at] in COLOURS else text

    lines = ("  ".join([*(cell(row, at) for at in widths), row[3]]) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)


def _few(found: Sequence[Group]) -> Iterator[Group]:
    """Of results that say something else on every node, the first ones, and the others in one."""
    kinds: dict[tuple[str, str], list[Group]] = {}
    for group in found:
        kinds.setdefault((group.finding.check, group.finding.status), []).append(group)
    for alike in kinds.values():
        yield from alike[:GROUPS]
        if rest := alike[GROUPS:]:
            rests = tuple(node for group in rest for node in group.nodes)
            yield Group(finding=replace(rest[0].finding, text="likewise; `sftc preflight --json` has all"), nodes=rests)


def span(nodes: Sequence[Node], total: int) -> str:
    """`all`, `0-61, 63`, or, of few, with their names: `3 (gpu-003)`."""
    if len(nodes) == total:
        return "all"
    ordered = sorted(nodes, key=lambda node: node.number)
    if len(ordered) <= NAMED:
        return ", ".join(node.label for node in ordered)
    spans: list[list[int]] = []
    for node in ordered:
        if spans and node.number == spans[-1][1] + 1:
            spans[-1][1] = node.number
        else:
            spans.append([node.number, node.number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def summary(nodes: Sequence[Node], seconds: float, total: int) -> str:
    """One line: `preflight: 2 nodes, 12 checks, all fine (3.1 s)`. total: nodes that the run has."""
    done = {one.check for node in nodes for one in node.findings if one.status != "skipped"}
    parts = []
    for status, word in (("failed", "failed"), ("warning", "warned of")):
        names = [check for check in CHECKS if _has(nodes, check, status)]
        if names:
            parts.append(f"{', '.join(names)} {word}")
    number = str(total) if len(nodes) == total else f"{len(nodes)} of {total}"
    count = f"{number} {'node' if total == 1 else 'nodes'}, {len(done)} checks"
    return f"preflight: {count}, {'; '.join(parts) or 'all fine'} ({seconds:.1f} s)"


def status_of(nodes: Sequence[Node]) -> str:
    """The worst: `failed`, `warning` or `ok`."""
    found = {one.status for node in nodes for one in node.findings}
    return next((status for status in WORST[:2] if status in found), "ok")


def document(nodes: Sequence[Node], seconds: float) -> dict[str, Any]:
    """The same as JSON has it, ungrouped."""
    return {
        "status": status_of(nodes),
        "seconds": round(seconds, 3),
        "nodes": [
            {
                "node": node.number,
                "host": node.host,
                "status": status_of([node]),
                "checks": [one.to_json() for one in sorted(node.findings, key=lambda one: CHECKS.index(one.check))],
            }
            for node in nodes
        ],
    }


def _has(nodes: Sequence[Node], check: str, status: str) -> bool:
    return any(one.check == check and one.status == status for node in nodes for one in node.findings)
