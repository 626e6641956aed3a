"""Host memory that `model.load: hf:DIR` takes on a rank, against the size of the files: `make bench-hf`.

    python hf_memory.py [LAYERS]     prints one JSON object, all sizes in bytes

A Llama of 1,024 units and so many layers is written in files of 512 MB, and the slices of one of two tensor-parallel
ranks are copied out of it into parameters that are there before, as on a GPU. Counted is anonymous memory: pages of the
mapped files belong to the page cache, which the kernel takes back when it wants.
"""

import json
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import torch

from sftc.runtime.hf.check import Model
from sftc.runtime.hf.cuts import cut, shape_of
from sftc.runtime.hf.files import read_tensors
from sftc.runtime.hf.load import loader
from sftc.runtime.hf.sizes import Sizes
from sftc.runtime.hf.tables import FAMILIES, places, rows_of
from sftc.runtime.hf.writer import Outline, write_tensors
from sftc.runtime.megatron import Slot

SIZES = Sizes(layers=8, hidden=1024, heads=16, groups=8, head=64, ffn=4096, expert_ffn=4096, experts=0, vocab=64_000)
RANK, RANKS = 1, 2
DTYPE = torch.bfloat16


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


class Peak(threading.Thread):
    """The largest `anonymous()` while it is entered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = anonymous()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.001):
            self.bytes = max(self.bytes, anonymous())

    def __enter__(self) -> "Peak":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def measure(layers: int, folder: Path) -> dict[str, int]:
    sizes = replace(SIZES, layers=layers)
    rows = rows_of(FAMILIES["llama"], tied=False, biases=False)
    wanted = [(row, place) for row in rows for place in places(row, layers, 0)]
    outlines = [
        Outline(name=name.format(**place), shape=shape_of(row, part, sizes))
        for row, place in wanted
        for part, (name, _) in enumerate(row.parts)
    ]
    write_tensors(folder, outlines, (torch.ones(one.shape, dtype=DTYPE) for one in outlines), DTYPE, 512_000_000)
    slots = []
    for row, place in wanted:
        piece = cut(row, sizes, rank=RANK, size=RANKS)
        shape = list(shape_of(row, 0, sizes))
        shape[piece.axis] = piece.length
        parameter = torch.zeros(shape, dtype=DTYPE)
        slots.append(Slot(name=row.names[0].format(**place), parameter=parameter, rank=RANK, size=RANKS))
    model = Model(directory=folder, sizes=sizes, rows=rows, tensors=read_tensors(folder))
    fill = loader(model)
    before = anonymous()
    with Peak() as peak:
        fill(slots)
    assert all(bool((slot.parameter == 1).all()) for slot in slots), "something was not loaded"
    return {
        "files": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "largest_tensor": max(one.bytes(DTYPE) for one in outlines),
        "parameters_of_the_rank": sum(slot.parameter.nbytes for slot in slots),
        "host_memory_taken": peak.bytes - before,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 96, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
