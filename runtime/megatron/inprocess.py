"""In-process restart: after a failure of one rank all ranks begin again in the processes that they have.

Megatron's own support for NVIDIA's resiliency extension does it: it tells the ranks of the failure, ends what they wait
for and lets them meet again. What it leaves open is done here: attempts are counted, mistakes end the run, connections
that gloo waits on are closed, and the ranks that begin again know what had happened.
"""

import importlib
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from .. import process
from ..errors import UserError
from .arguments import read_argument_file

PACKAGE, MODULE = "nvidia-resiliency-ext", "nvidia_resiliency_ext"
# What Megatron takes its asynchronous saving from, where it is there
SAVING, SAVING_SINCE = f"{MODULE}.checkpointing.async_ckpt.core", (0, 6)

LOST = "another rank has died"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """`number` counts from 0; `why` is what ended the one before; `store` is where the ranks of this one meet."""

    number: int = 0
    why: str = ""
    store: Any = None


class _Leave(BaseException):
    """What the extension takes for the end; an Exception is a failure to it, and is followed by another attempt."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def hide_old_saving() -> None:
    """Let Megatron 0.19 be imported beside a release of the extension before 0.6, which has no asynchronous saving for
    it: Megatron would fail at the import where it looks for that release's number.
    """
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        return
    if tuple(int(part) for part in found.split(".")[:2] if part.isdecimal()) < SAVING_SINCE:
        sys.modules.setdefault(SAVING, None)  # type: ignore[arg-type]


def require_extension(restarts: int) -> None:
    """UserError for any in-process restarts if NVIDIA's resiliency extension is not installed here."""
    if restarts and find_spec(MODULE) is None:
        raise UserError(
            f"`launch.max_inprocess_restarts` needs {PACKAGE}, which is not installed here",
            help=f"`pip install {PACKAGE}`, or set `launch.max_restarts`, for which torchrun starts new processes",
        )


def is_interruption(error: BaseException) -> bool:
    """Whether this is how the extension ends what a rank does because another one has failed."""
    return any(cls.__name__ == "RankShouldRestart" for cls in type(error).__mro__)


def restarting[T](attempt: Callable[[Attempt], T], *, limit: int, arguments: Path) -> T:
    """What `attempt` returns once no rank of it has failed; it is called `limit` more times at most.

    arguments: the argument file, with the time limits. Raises what ended the last attempt: on the rank that failed
    first its own error, on the others that rank's words. A UserError on any rank makes an attempt the last one.
    """
    from .. import cpu

    distributed: Any = importlib.import_module("torch.distributed")
    meeting, _, _ = next(distributed.rendezvous("env://"))
    failures = _Failures(meeting, int(os.environ.get("RANK", "0")))
    options = _options(arguments)
    # A rank that hangs may keep the others, and the extension itself, for longer than that.
    patience = _Patience(options.inprocess_barrier_timeout)

    def one(wrapper: Any = None) -> T:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        patience.end()
        cpu.claim_use(False)
        number = wrapper.iteration
        if number > limit or failures.are_mistakes(number - 1):
            raise _Leave(failures.last(number - 1))
        with _connections():
            try:
                store = distributed.PrefixStore(f"sftc/{number}", meeting)
                return attempt(Attempt(number=number, why=failures.why(number - 1), store=store))
            except Exception as error:  # told before connections are closed, which lets the other ranks fail
                patience.begin()
                failures.tell(number, error, is_last=number == limit)
            except BaseException as error:
                patience.begin()
                traceback.clear_frames(error.__traceback__)
                raise
            finally:
                process.end_helpers()
                _forget_graphs()
                cpu.claim_use(True)  # or the extension would not let Megatron's state be destroyed
            raise RuntimeError("as told")  # without the frames of the attempt: they hold the model

    one.__annotations__["wrapper"] = importlib.import_module(f"{MODULE}.inprocess").CallWrapper
    others, threading.excepthook = threading.excepthook, _lost
    # The process that the extension forks to watch this one writes into the log.
    terminal = os.dup(2)
    os.dup2(1, 2)
    wrap: Any = importlib.import_module("megatron.training.inprocess_restart").inprocess_restart
    try:
        return cast("T", wrap(one, options)())
    except _Leave as end:
        raise end.reason from None
    except BaseException as error:
        if not type(error).__module__.startswith(MODULE):
            raise
        raise process.Told(LOST) from error  # these ranks are too few to go on
    finally:
        patience.end()
        threading.excepthook = others
        os.dup2(terminal, 2)
        os.close(terminal)


def _forget_graphs() -> None:
    """What torch's compiler has made of the layers of an attempt is of no use to another."""
    if (dynamo := sys.modules.get("torch._dynamo")) is not None:
        dynamo.reset()


class _Patience:
    """How long this rank waits for the others to begin again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        self.end()
        self._timer = threading.Timer(self._seconds, _give_up)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _lost(died: threading.ExceptHookArgs) -> None:
    """A thread has died. Without the one that hears of failures this rank would wait for it: it dies at once where
    rank 0 does, at which the ranks meet.
    """
    traceback.print_exception(died.exc_value, file=sys.stdout)
    if type(died.thread).__module__.startswith(MODULE):
        _give_up()


def _give_up() -> None:
    status = process.fail(process.Told(LOST))
    process.end_helpers()
    sys.stdout.flush()
    os._exit(status)


class _Failures:
    """What ended each attempt, in the words of the rank that failed first: the others fail in its wake."""

    def __init__(self, store: Any, rank: int) -> None:
        self._store, self._rank = store, rank
        self._own: Exception | None = None

    def tell(self, number: int, error: Exception, *, is_last: bool) -> None:
        words: dict[str, Any] = {"rank": self._rank, "text": f"{type(error).__name__}: {error}", "mistake": None}
        if isinstance(error, UserError):
            words |= {"text": error.message.splitlines()[0], "mistake": [error.message, error.help]}
        self._store.compare_set(_key(number), "", json.dumps(words))
        self._own = error
        if not is_last and words["mistake"] is None:
            traceback.print_exception(error, file=sys.stdout)
            self._own = None

    def are_mistakes(self, number: int) -> bool:
        return self._of(number).get("mistake") is not None

    def why(self, number: int) -> str:
        told = self._of(number)
        return f"rank {told['rank']} failed: {told['text']}" if told else "the ranks made no progress"

    def last(self, number: int) -> Exception:
        """What to raise after attempt `number`, which no other follows."""
        told = self._of(number)
        if told and told["rank"] == self._rank and self._own is not None:
            return self._own
        if told and told["mistake"] is not None:
            message, help = told["mistake"]
            return UserError(message, help=help)
        return process.Told(self.why(number))

    def _of(self, number: int) -> dict[str, Any]:
        key = _key(number)
        return dict(json.loads(self._store.get(key))) if self._store.check([key]) else {}


def _key(number: int) -> str:
    return f"sftc/failed/{number}"


def _options(arguments: Path) -> Any:
    parse: Any = importlib.import_module("megatron.training.arguments").parse_args
    argv = sys.argv
    sys.argv = [argv[0], *read_argument_file(arguments)]
    try:
        options = parse(ignore_unknown_args=True)
    finally:
        sys.argv = argv
    options.async_strategy = "mcore"  # which is asked for, although nothing is saved beside the training
    return options


@contextmanager
def _connections() -> Iterator[None]:
    """Close the connections of gloo's process groups that are made meanwhile, should it end by an exception.

    Ranks that wait in one of gloo's collectives can be ended by nothing else, but for their time limit.
    """
    import torch

    made: dict[int, str] = {}
    originals = {name: getattr(torch.distributed, name) for name in ("init_process_group", "new_group")}

    def watching(original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            before = _sockets()
            try:
                return original(*args, **kwargs)
            finally:
                made.update(_sockets().items() - before.items())

        return watched

    for name, original in originals.items():
        setattr(torch.distributed, name, watching(original))
    try:
        yield
    except BaseException:
        for number, _ in made.items() & _sockets().items():
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # its thread would end all
                    connection.shutdown(socket.SHUT_RDWR)
        raise
    finally:
        for name, original in originals.items():
            setattr(torch.distributed, name, original)


def _sockets() -> dict[int, str]:
    """File descriptors of this process that are sockets, with the kernel's names for those."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            link = str(path.readlink())
            if link.startswith("socket:"):
                found[int(path.name)] = link
    return found
