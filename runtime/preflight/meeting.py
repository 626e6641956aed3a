"""Where the nodes meet before torchrun does: at MASTER_ADDR and MASTER_PORT, which shows that the port is free there
and reached from everywhere. Lines of JSON over TCP; the first node asks, the others answer.

The listening socket is closed when all are there, long before a node is let go: torchrun's own store never meets ours.
"""

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..record import run_id
from .nodes import slurm_names

# Seconds to wait for the other nodes: people start one after the other, Slurm all at once.
BY_HAND, BY_SLURM = 300.0, 60.0
GREETING = 5.0  # for an answer to the first line
PATIENCE = 10.0  # for a port that somebody else still holds: a run that is ending, say
AGAIN = 0.2
LONGEST = 1 << 22  # bytes of a line

type Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and as what run the nodes meet; `wait` is how long for, in seconds."""

    host: str
    port: int
    run: str
    nnodes: int
    wait: float


def endpoint(name: str, port: int | None, nnodes: int) -> Endpoint | None:
    """As launch.sh has torchrun meet; without MASTER_ADDR on the first node of a step of Slurm that has a task on each
    node; None if there is neither. UserError for a port that is no number.
    """
    # A batch script has a task number too, but is no step that srun has started.
    names = slurm_names() if os.environ.get("SLURM_STEP_NUM_TASKS") == str(nnodes) else []
    host = os.environ.get("MASTER_ADDR") or (names[0] if len(names) == nnodes else None)
    if not host:
        return None
    stated = os.environ.get("MASTER_PORT") or port
    try:
        number = int(stated or 0)
        wait = float(os.environ.get("SFTC_PREFLIGHT_WAIT") or (BY_SLURM if "SLURM_JOB_ID" in os.environ else BY_HAND))
    except ValueError:
        raise UserError("MASTER_PORT and SFTC_PREFLIGHT_WAIT have to be numbers") from None
    if not 0 < number < 1 << 16:
        raise UserError(f"MASTER_PORT is {stated}, which is no port")
    return Endpoint(host=host, port=number, run=run_id(name), nnodes=nnodes, wait=wait)


def whereabouts(host: str, port: int) -> str:
    """`free`: an address of this machine, with nobody at the port; `busy`: somebody is there; `elsewhere`: of another.

    UserError if the name means nothing here.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(
            f"MASTER_ADDR is `{host}`, which means nothing here: {error.strerror or error}",
            "set it to the host name or the address of the first node",
        ) from None
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "busy"
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            raise UserError(f"port {port} of this node cannot be listened at: {error.strerror}", _PORT) from None
        return "free"
    return "elsewhere"


_PORT = "MASTER_PORT, the same on every node, names another port"


class Link:
    """A line to another node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, seconds: float) -> Message | None:
        """The next message; None if there is none in time, or if the other one has gone or speaks something else."""
        try:
            line = await asyncio.wait_for(self._reader.readline(), seconds)
            message = json.loads(line)
        except (OSError, ValueError):  # TimeoutError is an OSError
            return None
        return message if isinstance(message, dict) else None

    async def send(self, message: Message) -> None:
        """To one that has gone: nothing happens."""
        with contextlib.suppress(OSError):
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()

    async def ask(self, message: Message, seconds: float) -> Message | None:
        await self.send(message)
        return await self.read(seconds)

    @property
    def is_cut(self) -> bool:
        """The other end has hung up, and everything that it said has been read."""
        return self._reader.at_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await asyncio.wait_for(self._writer.wait_closed(), GREETING)


@dataclass(slots=True, kw_only=True)
class Guest:
    """A node that has come, with the message that it came with. A silent one has once not answered in time: what comes
    from it now would be the answer to an earlier question.
    """

    link: Link
    hello: Message
    is_silent: bool = False

    async def ask(self, message: Message, seconds: float) -> Message | None:
        """None without an answer in time."""
        answer = None if self.is_silent else await self.link.ask(message, seconds)
        self.is_silent = answer is None
        return answer


async def host(at: Endpoint, on_wait: Callable[[int], None]) -> list[Guest] | None:
    """Those who came in time, nnodes - 1 if all did; None if another process listens at the port. `on_wait` hears once
    how many are missing still.
    """
    guests: list[Guest] = []
    complete = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(reader, writer)
        hello = await link.read(GREETING)
        if hello is None or hello.get("run") != at.run or complete.is_set():
            await link.send({"refused": at.run})
            await link.close()
            return
        guests[:] = [guest for guest in guests if not guest.link.is_cut]  # who was stopped may have come again
        guests.append(Guest(link=link, hello=hello))
        if len(guests) == at.nnodes - 1:
            complete.set()
        await link.send({"welcome": at.run})

    try:
        server = await asyncio.start_server(greet, port=at.port, limit=LONGEST, reuse_address=True)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        raise UserError(f"port {at.port} of this node cannot be listened at: {error.strerror}", _PORT) from None
    try:
        soon = min(PATIENCE, at.wait)
        if not await _happens(complete, soon) and at.wait > soon:
            on_wait(at.nnodes - 1 - len(guests))
            await _happens(complete, at.wait - soon)
    finally:
        complete.set()  # who comes now is late
        server.close()
    return guests


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        return await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a node could not join: the last thing that happened."""

    text: str
    help: str


async def join(at: Endpoint, hello: Message, seconds: float) -> Link | Refusal:
    """The line to the first node, tried again and again within `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    last = "nobody answers"
    while loop.time() < deadline:
        try:
            opening = asyncio.open_connection(at.host, at.port, limit=LONGEST)
            reader, writer = await asyncio.wait_for(opening, min(GREETING, max(0.1, deadline - loop.time())))
        except TimeoutError:
            last = "no answer: a firewall may drop what is sent there"
        except OSError as error:
            last = "connection refused: nobody listens there" if error.errno == errno.ECONNREFUSED else str(error)
        else:
            link = Link(reader, writer)
            answer = await link.ask({**hello, "run": at.run}, GREETING)
            if answer is not None and "welcome" in answer:
                return link
            await link.close()
            last = "another program listens there"
            if answer is not None and "refused" in answer:
                last = f"the run `{answer['refused']}` meets there, and this is `{at.run}`"
                if answer["refused"] == at.run:
                    last = f"{at.nnodes} nodes are there already"
        await asyncio.sleep(AGAIN)
    return Refusal(
        text=f"the first node, {at.host}:{at.port}, cannot be reached within {seconds:g} s: {last}",
        help="is launch.sh running there, and are MASTER_ADDR and MASTER_PORT the same on every node? "
        "`nc -vz` tries the connection",
    )
