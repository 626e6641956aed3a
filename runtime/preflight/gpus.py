"""`python -m sftc.runtime.preflight.gpus COUNT`: the GPUs as torch sees them, as JSON, each of the first COUNT tried.

A process of its own, which alone pays for torch, and whose hold on the GPUs ends with it.
"""

import json
import sys
from typing import Any

SIDE = 256  # of the matrices that are multiplied


def look(count: int) -> list[dict[str, Any]]:
    """`name`; `total` and `free` in bytes, `free` as it was before; `problem`, one line, if it could not be used."""
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        one: dict[str, Any] = {"name": device.name, "total": device.total_memory, "free": None, "problem": None}
        if index < count:
            try:
                one["free"] = torch.cuda.mem_get_info(index)[0]
                ones = torch.ones(SIDE, SIDE, device=f"cuda:{index}")
                if int((ones @ ones).sum().item()) != SIDE**3:
                    one["problem"] = "a product of two matrices came out wrong"
            except RuntimeError as error:
                one["problem"] = str(error).splitlines()[0]
        found.append(one)
    return found


if __name__ == "__main__":
    print(json.dumps(look(int(sys.argv[1]))))
