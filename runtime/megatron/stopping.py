"""A request to stop, from the signal to Megatron's own way out, which saves a checkpoint first."""

import signal
from types import FrameType
from typing import Any

REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
OPTIONS = ("--exit-signal-handler",)
_received: list[str] = []


def listen() -> None:
    """From here on these signals end nothing: the iteration is finished, saved, and that is all.

    Megatron listens to one signal, once it is set up; what came before is lost on it.
    """
    from megatron.training import dist_signal_handler, global_vars

    def note(number: int, _: FrameType | None) -> None:
        _received.append(signal.Signals(number).name)

    class Handler(dist_signal_handler.DistributedSignalHandler):  # type: ignore[misc]
        """Megatron asks all ranks whether one of them has `_signal_received`, after each iteration."""

        def __enter__(self) -> Any:
            self.released = True
            return self

        @property
        def _signal_received(self) -> bool:
            return bool(_received)

    for number in REQUESTS:
        signal.signal(number, note)
    global_vars.DistributedSignalHandler = Handler


def reason() -> str | None:
    """The first signal that this rank received, by name."""
    return _received[0] if _received else None
