"""The processes that Megatron starts beside a rank to write checkpoints: their device, their end, who misses them."""

import atexit
import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable
from functools import wraps
from multiprocessing.connection import wait
from multiprocessing.managers import SyncManager
from typing import Any

from ..errors import UserError
from ..process import deaf_children, die_with_parent, fail

STRATEGIES = "megatron.core.dist_checkpointing.strategies"


def mend_save_helper() -> None:
    """Let the process that collects the results of checkpoint writers die with its rank.

    Megatron spawns it at the first save and leaves it to Python to end it, which a SIGKILL of the rank prevents: each
    killed run would leave half a gigabyte behind.
    """
    module: Any = importlib.import_module(f"{STRATEGIES}.filesystem_async")

    def results_queue(mp_mode: str = "spawn") -> Any:
        if module._results_queue is None:
            manager = SyncManager(ctx=multiprocessing.get_context(mp_mode))
            with deaf_children():
                manager.start(initializer=die_with_parent)
            module._results_queue = manager.Queue()
        return module._results_queue

    module.get_write_results_queue = results_queue


def mend_async_worker() -> None:
    """Let asynchronous saving work without a GPU, and a worker that has died end its rank.

    The worker divides by the number of GPUs, and writes what the rank is changing meanwhile (`_copying`). And a rank
    waits for it without end, whatever has become of it.
    """
    caller: Any = importlib.import_module(f"{STRATEGIES}.async_utils").PersistentAsyncCaller
    start, close = caller._get_process, caller.close
    if hasattr(start, "__wrapped__"):
        return
    is_expected = threading.Event()
    atexit.register(is_expected.set)  # Python ends its daemons

    @wraps(start)
    def started(*args: Any, **kwargs: Any) -> Any:
        is_new = caller._persistent_process is None
        with deaf_children():
            process = start(*args, **kwargs)
        if is_new:
            threading.Thread(target=_miss, args=(process, is_expected), daemon=True).start()
        return process

    @wraps(close)
    def closed(*args: Any, **kwargs: Any) -> Any:
        is_expected.set()
        return close(*args, **kwargs)

    caller._get_process, caller.close = started, closed
    caller.async_loop = staticmethod(write_beside)


def write_beside(*args: Any) -> None:
    """The worker's whole life, in its own process: Megatron's, on the device of the rank."""
    die_with_parent()
    from .. import cpu

    cpu.activate()
    writer: Any = importlib.import_module(f"{STRATEGIES}.filesystem_async").FileSystemWriterAsync
    writer.preload_tensors = staticmethod(_copying(writer.preload_tensors))
    importlib.import_module(f"{STRATEGIES}.async_utils").PersistentAsyncCaller.async_loop(*args)


def _copying(preload: Callable[..., Any]) -> Callable[..., Any]:
    """The step for which the rank waits, with what lies in the host's memory copied, too.

    Megatron copies from GPUs. The worker shares the host's tensors with the rank, which goes on to change them: the
    checkpoint would hold states of a later iteration than it says.
    """

    def preloaded(*args: Any, **kwargs: Any) -> Any:
        return [
            (file, key, (data, [(item, tensor.clone() if tensor.is_shared() else tensor) for item, tensor in tensors]))
            for file, key, (data, tensors) in preload(*args, **kwargs)
        ]

    return preloaded


def _miss(process: Any, is_expected: threading.Event) -> None:
    # the status can be read once, and that is the rank's to do where the end is expected
    wait([process.sentinel])
    if not is_expected.is_set():
        process.join()
        error = UserError(
            f"the process that writes checkpoints beside the training has died with status {process.exitcode}",
            help="the log of this rank may say why; `checkpoint.async_save: false` needs less memory of the host",
        )
        os._exit(fail(error))
