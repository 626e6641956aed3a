"""Batches of lines through a `SampleMaker`: in threads of this process, or, where there is much to do, in processes.

Rendering and proving hold Python's lock, tokenising does not. For few rows two threads are enough: one renders while
the tokens of the other's batch are made, on all cores. For many rows each core gets a process, which costs about a
second to start. Either way the batches come back in their order, and what they hold does not depend on the way.
"""

import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from ..errors import UserError
from .detect import ENOUGH, refuse_other_format
from .fit import Sample
from .mask import MaskFinder
from .reader import Line
from .samples import Batch, SampleMaker
from .settings import DataSettings, Source
from .tally import Tally
from .template import ChatTemplate, TemplateText
from .tokens import TextTokenizer

# A batch takes about a tenth of a second; a row that is no object counts as its place.
BATCH_BYTES = 1 << 20
# From here on workers pay for their start.
MANY_BYTES = 24 << 20
# The process that reads and writes is busy with as many; each has a tokenizer of its own in memory.
MOST_WORKERS = 16


class SampleReader:
    """Samples of sources. `template` is None for plain text. Use it in a `with` statement of `reading`."""

    def __init__(self, executor: Executor, make: Callable[..., Batch], lookahead: int) -> None:
        self._executor = executor
        self._make = make
        self._lookahead = lookahead

    def read(
        self, lines: Iterable[Line], source: Source, tally: Tally, advance: Callable[[int, int], None]
    ) -> Iterator[Sample]:
        """Every usable row of `lines`, in order; `tally` counts all rows and those that are not usable. `advance`
        hears of bytes and rows read. UserError as soon as the first rows all have one other format.
        """
        waiting: deque[tuple[int, Future[Batch]]] = deque()
        try:
            for batch in _batches(lines):
                waiting.append((batch[-1].end, self._executor.submit(self._make, batch, source)))
                if len(waiting) > self._lookahead:
                    yield from self._finished(*waiting.popleft(), source, tally, advance)
            while waiting:
                yield from self._finished(*waiting.popleft(), source, tally, advance)
        except BrokenProcessPool:
            raise UserError(
                "a worker process that prepares rows was killed; nothing was stored",
                "it may have run out of memory: the system's log says so (`dmesg`)",
            ) from None
        finally:
            for _, future in waiting:
                future.cancel()

    def _finished(
        self, end: int, future: "Future[Batch]", source: Source, tally: Tally, advance: Callable[[int, int], None]
    ) -> Iterator[Sample]:
        batch = future.result()
        tally.absorb(batch.tally)
        refuse_other_format(tally, source)
        yield from batch.samples()
        advance(end, tally.rows)


@contextmanager
def reading(
    settings: DataSettings, tokenizer: TextTokenizer, template: ChatTemplate | None, total_bytes: int
) -> Iterator[SampleReader]:
    """A reader for about `total_bytes` of rows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, MOST_WORKERS)
    if workers == 1 or total_bytes < MANY_BYTES:
        maker = SampleMaker(settings, tokenizer, None if template is None else MaskFinder(template, tokenizer))
        with ThreadPoolExecutor(max_workers=2) as threads:
            yield SampleReader(threads, maker.make, lookahead=1)
        return
    text = None if template is None else template.text
    # Forking is not safe beside the threads of the tokenizer.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (settings, dict(tokenizer.digests), text))
    try:
        yield SampleReader(pool, _make, lookahead=2 * workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The first ones alone, to find out early if they are of another format."""
    batch: list[Line] = []
    began = 0
    for read, line in enumerate(lines, start=1):
        batch.append(line)
        if line.end - began >= BATCH_BYTES or read == ENOUGH or len(batch) >= BATCH_BYTES // 64:
            yield batch
            batch, began = [], line.end
    if batch:
        yield batch


_maker: SampleMaker | None = None


def _start(settings: DataSettings, digests: dict[str, str], text: TemplateText | None) -> None:
    """Make this worker's own tokenizer and template, and end the worker when its parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches every process of the terminal; the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Every core has a worker already.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    global _maker
    tokenizer = TextTokenizer.load(settings.tokenizer_path, settings.vocab_size)
    assert dict(tokenizer.digests) == digests, "the tokenizer's files change while they are read"
    finder = None if text is None else MaskFinder(ChatTemplate(text, tokenizer.special_tokens), tokenizer)
    _maker = SampleMaker(settings, tokenizer, finder)
    # What is there now stays; the collector need not look at it again and again.
    gc.freeze()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(lines: list[Line], source: Source) -> Batch:
    assert _maker is not None
    return _maker.make(lines, source)
