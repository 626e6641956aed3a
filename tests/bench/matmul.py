"""The rate of this GPU's matrix products: `python matmul.py`, or `python matmul.py cpu` for a rehearsal."""

import json
import sys
import time
from statistics import median

import torch
from gpu_case import RESULT

SIZE, TINY = 8192, 256
WARM, COUNTED = 10, 30


def main() -> None:
    cpu = sys.argv[1:] == ["cpu"]
    size = TINY if cpu else SIZE
    with torch.device("cpu" if cpu else "cuda"):
        left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(WARM + COUNTED):
        began = time.perf_counter()
        torch.matmul(left, right)
        if not cpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    found = {
        "tflops": 2 * size**3 / median(seconds[WARM:]) / 1e12,
        "size": size,
        "device": "a CPU" if cpu else torch.cuda.get_device_name(),
        "memory_bytes": None if cpu else torch.cuda.get_device_properties(0).total_memory,
        "cuda": torch.version.cuda,
    }
    print(RESULT + json.dumps(found))


if __name__ == "__main__":
    main()
