"""How much memory this process holds."""

import os
import sys
from pathlib import Path

STATM = Path("/proc/self/statm")  # in pages; the second number is the resident set: proc(5)


def memory_bytes() -> int | None:
    """On a GPU the most that torch has allocated there since the process began; on the CPU what of the process is in
    memory now, libraries included. None where the system does not say.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    try:
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
