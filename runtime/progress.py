"""What a person sees: one redrawn line on a terminal, plain lines in a log. On stderr, always."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from .errors import UserError

BAR = 24
# Seconds after which the speed so far says something about the time to come.
SETTLED = 3.0


class Line:
    """A line that is redrawn where the stream is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.redraws = self.stream.isatty()
        self._is_drawn = False

    def draw(self, share: float, text: str) -> None:
        """A bar, `share` (0 to 1) of it full, and the text. On a terminal only."""
        full = int(BAR * min(share, 1.0))
        self.stream.write(f"\r\x1b[K{'█' * full}{'░' * (BAR - full)} {text}")
        self.stream.flush()
        self._is_drawn = True

    def say(self, text: str) -> None:
        """A line that stays."""
        self.stream.write(("\r\x1b[K" if self._is_drawn else "") + text + "\n")
        self.stream.flush()
        self._is_drawn = False

    def close(self) -> None:
        """Leave what was drawn last standing."""
        if self._is_drawn:
            self.stream.write("\n")
            self._is_drawn = False


class Progress(Line):
    """Of a training; the caller decides which rank has one."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.total = total

    def step(
        self, iteration: int, *, loss: float, tokens_per_second: float, tflops: float, seconds_left: float
    ) -> None:
        """One logged iteration. loss: nats per supervised token; tflops: of each rank."""
        count = f"{iteration:>{len(str(self.total))}}/{self.total}"
        speed = f"{tokens_per_second:,.0f} tokens/s  {tflops:.3g} TFLOP/s/rank"
        figures = f"loss {loss:.4f}  {speed}  {duration(seconds_left)} left"
        if self.redraws:
            self.draw(iteration / max(self.total, 1), f"{count}  {figures}")
        else:
            self.say(f"iteration {count}  {figures}")


class Counter(Line):
    """Of something that is measured in bytes and counted in rows; a log gets a line per tenth."""

    def __init__(self, what: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._what = what
        self._tenths = 0
        self._clock = clock
        self._began: float | None = None

    def __call__(self, done_bytes: int, total_bytes: int, rows: int) -> None:
        share = done_bytes / total_bytes if total_bytes else 1.0
        now = self._clock()
        self._began = now if self._began is None else self._began
        elapsed = now - self._began
        left = f", {duration(elapsed * (1 - share) / share)} left" if elapsed >= SETTLED and 0 < share < 1 else ""
        text = f"{self._what}: {share:.0%}, {rows:,} rows{left}"
        if self.redraws:
            self.draw(share, text)
        elif int(10 * share) > self._tenths:
            self._tenths = int(10 * share)
            self.say(text)


def say(text: str) -> None:
    """One line outside of any progress."""
    print(text, file=sys.stderr, flush=True)


def complain(error: UserError) -> None:
    """What is wrong and what helps."""
    say(f"error: {error.message}")
    if error.help:
        say(f"help: {error.help}")


def duration(seconds: float) -> str:
    """`42s`, `3m05s`, `2h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
