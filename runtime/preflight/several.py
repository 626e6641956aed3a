"""What several nodes find out together: the first one asks, the others answer, and it knows of everything."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..record import Stopwatch, epoch_seconds
from .finding import SLOW, Finding, Findings, together
from .meeting import PATIENCE as BUSY
from .meeting import Endpoint, Guest, Link, Message, Refusal, host, join, whereabouts
from .nodes import Node, agree, clock, missing, numbered, own_host, own_number
from .places import Markers
from .ranks import CHECK, LOADING, NETWORK, REDUCING, Ranks, free_port

GRACE = 10.0  # seconds that an answer may take longer than what it is about
PINGS = 3
BRIEF = 2.0  # seconds of an attempt to join where another node of this machine may be the first
SILENT = "the node does not answer any more"
NEEDED = ("versions", "devices")  # without these an all-reduce would only fail once more

type Told = Callable[[list[Node]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether all nodes may go on; `told_by` is the host that says why, None if it is this one."""

    goes_on: bool
    told_by: str | None = None


class Preflight:
    """This node's part. `told` is called on the first node with all that was found, and says whether all may go on."""

    def __init__(self, at: Endpoint, found: Findings, markers: Markers, count: int, say: Callable[[str], None]) -> None:
        self._at, self._found, self._markers, self._count, self._say = at, found, markers, count, say

    async def run(self, told: Told) -> Verdict | Refusal:
        """Refusal if the nodes do not meet."""
        hello = {
            "number": own_number(self._at.nnodes),
            "host": own_host(),
            "findings": [one.to_json() for one in self._found.items],
            "facts": self._found.facts,
        }
        watch, waited = Stopwatch(), 0.0
        while True:
            where = await asyncio.to_thread(whereabouts, self._at.host, self._at.port)
            # Nodes may share a machine: then number 0 is the first one, unless it does not come for long.
            if where == "free" and (hello["number"] in (None, 0) or waited > BUSY):
                guests = await host(self._at, self._on_wait)
                if guests is not None:
                    return await self._lead(hello, guests, told)
            link = await join(self._at, hello, self._at.wait if where == "elsewhere" else BRIEF)
            if isinstance(link, Link):
                return await self._follow(link)
            waited += watch.lap()
            if where == "elsewhere":
                return link
            if where == "busy" and waited > BUSY:
                return Refusal(
                    text=f"port {self._at.port} of this node is in use by another program",
                    help=f"`ss -ltnp 'sport = :{self._at.port}'` shows it; MASTER_PORT, the same on every node, names "
                    "another port",
                )

    def _on_wait(self, absent: int) -> None:
        who = "1 node has" if absent == 1 else f"{absent} nodes have"
        self._say(f"preflight: {who} not come yet, waiting up to {self._at.wait:g} s (SFTC_PREFLIGHT_WAIT)")

    async def _lead(self, hello: Message, guests: list[Guest], told: Told) -> Verdict:
        nodes = _nodes([hello, *(guest.hello for guest in guests)], self._at)
        mine, others = nodes[0], nodes[1:]
        absent = missing([node.number for node in nodes], self._at.nnodes, self._at.wait, self._at.host)
        for node in nodes:
            node.add("port", "ok", f"they meet at {self._at.host}:{self._at.port}")
        mine.findings.append(clock(0.0, 0.0))
        for node, finding in zip(others, await asyncio.gather(*map(_clock, guests)), strict=True):
            node.findings.append(finding)
        await self._look(mine, others, guests)
        agree(nodes)
        why = "versions or devices failed" if any(node.failed(*NEEDED) for node in nodes) else ""
        if absent or any(guest.is_silent for guest in guests):
            why = "not all nodes are there"
        for node in nodes if why else ():
            node.add(CHECK, "skipped", why)
        if not why:
            await self._reduce(mine, others, guests)
        goes_on = told(sorted([*nodes, *absent], key=lambda node: node.number))
        await asyncio.gather(*(guest.link.send({"goes_on": goes_on, "told_by": hello["host"]}) for guest in guests))
        await asyncio.gather(*(guest.link.close() for guest in guests))
        return Verdict(goes_on=goes_on)

    async def _look(self, mine: Node, others: Sequence[Node], guests: Sequence[Guest]) -> None:
        if mine.failed("paths"):
            return
        question = {"step": "look", "marker": self._markers.name}
        answers = await asyncio.gather(*(guest.ask(question, SLOW + GRACE) for guest in guests))
        _note("shared", others, answers)
        if not any(node.failed("shared") for node in others):
            alike = next((one for node in others for one in node.findings if one.check == "shared"), None)
            mine.findings += [alike] if alike else []

    async def _reduce(self, mine: Node, others: Sequence[Node], guests: Sequence[Guest]) -> None:
        device = mine.facts["device"]
        count = self._count if device == "cuda" else 1
        ranks = Ranks(count, device)
        try:
            question: Message = {"step": "load", "count": count, "device": device}
            asked = [guest.ask(question, LOADING + GRACE) for guest in guests]
            own, *answers = await asyncio.gather(_finding(ranks.load), *asked)
            _note(CHECK, [mine, *others], [own, *answers])
            if any(node.failed(CHECK) for node in (mine, *others)):
                return
            port, world = free_port(), count * (1 + len(guests))
            question = {"step": "reduce", "host": self._at.host, "port": port, "world": world}
            asked = [
                guest.ask({**question, "first": count * number}, REDUCING + GRACE)
                for number, guest in enumerate(guests, start=1)
            ]
            own, *answers = await asyncio.gather(_finding(ranks.reduce, "127.0.0.1", port, 0, world), *asked)
            _note(CHECK, [mine, *others], [own, *answers])
            _blame([mine, *others])
        finally:
            ranks.end()

    async def _follow(self, link: Link) -> Verdict | Refusal:
        ranks: Ranks | None = None
        try:
            while True:
                asked = await link.read(self._at.wait + LOADING + REDUCING + 4 * GRACE)
                if asked is None:
                    text = f"the first node, {self._at.host}:{self._at.port}, has gone before the end"
                    return Refusal(text=text, help="see what it says")
                if "goes_on" in asked:
                    return Verdict(goes_on=asked["goes_on"], told_by=asked["told_by"])
                answer: Message = {}
                match asked.get("step"):
                    case "clock":
                        answer = {"now": epoch_seconds()}
                    case "look":
                        found = await asyncio.to_thread(self._seen, asked["marker"])
                        answer = {"findings": [one.to_json() for one in found.items]}
                    case "load":
                        ranks = Ranks(asked["count"], asked["device"])
                        answer = await _finding(ranks.load)
                    case "reduce" if ranks is not None:
                        place = (asked["host"], asked["port"], asked["first"], asked["world"])
                        answer = await _finding(ranks.reduce, *place)
                await link.send(answer)
        finally:
            if ranks is not None:
                ranks.end()
            await link.close()

    def _seen(self, marker: str) -> Findings:
        return together({"shared": lambda found: self._markers.sees(marker, found)}, {})


def alone(found: Findings, count: int, nnodes: int) -> Node:
    """What one node finds out by itself: the only one, or one of several that nobody has told where to meet."""
    if nnodes > 1:
        for check in ("nodes", "port", "shared", "clock"):
            text = f"1 of {nnodes} nodes: MASTER_ADDR is not set, so the others were not looked for"
            found.add(check, "skipped", text if check == "nodes" else "needs the other nodes")
    gpus = found.facts.get("device") == "cuda"
    if not gpus or count == 1 or found.failed(*NEEDED):
        why = "versions or devices failed" if found.failed(*NEEDED) else "one GPU" if gpus else "one node, no GPU"
        found.add(CHECK, "skipped", why)
    else:
        ranks = Ranks(count, "cuda")
        try:
            slow = ranks.load()
            node = Node(number=0, host=None, findings=[slow or ranks.reduce("127.0.0.1", free_port(), 0, count)])
        finally:
            ranks.end()
        _blame([node])
        found.items += node.findings
    number = own_number(nnodes) if nnodes > 1 else 0
    return Node(number=number or 0, host=own_host(), findings=found.items, facts=found.facts)


def _nodes(hellos: Sequence[Message], at: Endpoint) -> list[Node]:
    """In the order of their arrival; whoever speaks up first is the first one."""
    stated = [hello["number"] for hello in hellos]
    numbers = numbered(stated, at.nnodes)
    nodes = [
        Node(
            number=number,
            host=hello["host"],
            findings=[Finding(**one) for one in hello["findings"]],
            facts=hello["facts"],
        )
        for number, hello in zip(numbers, hellos, strict=True)
    ]
    for node, number in zip(nodes, stated, strict=True):
        if number is None or numbers == stated:
            node.add("nodes", "ok", f"came in time, {at.nnodes} are expected")
            continue
        text = f"NODE_RANK is {number}, and the nodes do not have the numbers 0 to {at.nnodes - 1}, each once"
        node.add("nodes", "warning", text, "torchrun numbers the nodes itself; here they are numbered as they came")
    return nodes


async def _clock(guest: Guest) -> Finding:
    """By the quickest of a few questions: the answer is from half way between question and arrival."""
    best: tuple[float, float] | None = None
    for _ in range(PINGS):
        before = epoch_seconds()
        answer = await guest.ask({"step": "clock"}, GRACE)
        after = epoch_seconds()
        if answer is None:
            return _silent("clock")
        if best is None or after - before < best[0]:
            best = (after - before, float(answer["now"]) - (before + after) / 2)
    assert best is not None
    return clock(best[1], best[0] / 2)


async def _finding(find: Callable[..., Finding | None], *arguments: Any) -> Message:
    """What is found in a thread, as an answer."""
    found = await asyncio.to_thread(find, *arguments)
    return {"findings": [found.to_json()] if found is not None else []}


def _note(check: str, nodes: Sequence[Node], answers: Sequence[Message | None]) -> None:
    for node, answer in zip(nodes, answers, strict=True):
        if answer is not None:
            node.findings += [Finding(**one) for one in answer["findings"]]
        elif not any(one.text == SILENT for one in node.findings):  # it is said once
            node.findings.append(_silent(check))


def _blame(nodes: Sequence[Node]) -> None:
    """Where all waited in vain and nobody is to blame it is the way between them: then it failed on all of them."""
    if any(node.failed(CHECK) for node in nodes):
        return
    for node in nodes:
        for at, one in enumerate(node.findings):
            if one.check == CHECK and one.status == "skipped":
                text = f"{one.text}, as others did: they do not reach each other"
                node.findings[at] = Finding(check=CHECK, status="failed", text=text, help=NETWORK)


def _silent(check: str) -> Finding:
    help = "look at its output, and whether it is still there"
    return Finding(check=check, status="failed", text=SILENT, help=help)
