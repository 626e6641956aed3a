"""How fast a GPU trains through sftc, against plain Megatron and against TRL with Liger's kernels: `make bench-gpu`.

    python tests/bench/gpu_speed.py [--only SIDE...] [--table TABLE...] [--batch N...] [--set KEY=VALUE...]
                                    [--rows FILE] [--tokenizer DIR] [--json FILE] [--rehearse]

On one NVIDIA GPU, in about eight minutes, without a network. All sides train a Llama of 1.24 billion random weights on
4,096 tokens a row, in bf16 with fp32 master weights and with nothing recomputed: `ours` through `bash launch.sh`,
`plain` through Megatron's pretrain() with its own local layers and unfused attention, `trl` through TRL's SFTTrainer.
They run one after the other in processes of their own, each with the largest micro-batch of a few that fits.

The first table has rows of equal length. The second has conversations in packs (those of `--rows`, in `messages`, or
of the repository), of which ours and TRL train on the same tokens: what the chat template marks as the assistant's, or
else the last turn. Packs go through sftc one at a time, and through TRL too unless flash-attn is installed. A
conversation that is too long is left out by sftc and cut by TRL.

Speeds are medians over the iterations that are counted. FLOPs are 6 for each parameter and token, and attention over
the half of the sequence that is not masked; their share is of the rate of bf16 torch.matmul in the same run. What the
first table calls supervised does not change what is computed, and is left out.

The status is 1 if a target is not reached or a side fails, and 2 if it cannot run: then it says what is missing.
`--rehearse` runs every part with a tiny model on a CPU, TRL without Liger. None of its figures means anything.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench_data import tokenizers, write_rows
from gpu_case import FULL, TINY, Case, Shape, equal_rows, iterations
from gpu_sides import SIDES, DoesNotFit, matmul
from gpu_table import GIB, TABLES, Row, as_table, spelt, starts, verdicts

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "recipes/quickstart"
CONVERSATIONS = 3000
MICROS = {"ours": (4, 2, 1), "plain": (2, 1), "trl": (4, 2, 1)}  # unfused attention holds the scores of each layer
PACKAGES = (
    "sftc",
    "torch",
    "triton",
    "megatron-core",
    "transformer-engine",
    "transformers",
    "trl",
    "liger-kernel",
    "flash-attn",
)
REMEDY = "`pip install trl liger-kernel`"


def main() -> int:
    options = parsed()
    if lacking := missing(options.only, rehearse=options.rehearse):
        for line in lacking:
            print(f"bench-gpu: {line}", file=sys.stderr)
        return 2
    if options.rehearse:
        print(f"REHEARSAL, {REHEARSED}\n")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        place = Path(folder)
        machine = matmul(place, cpu=options.rehearse)
        say(f"bf16 torch.matmul {machine['size']}^3: {machine['tflops']:,.4g} TFLOP/s")
        bench = Bench(place, options, machine)
        for case in bench.cases():
            bench.run(case)
            if options.json:
                options.json.write_text(json.dumps(bench.summary(), indent=2) + "\n")
    print(bench.report())
    print(f"\nall of it took {time.monotonic() - began:,.0f} s")
    return int(any(row.failed for row in bench.rows) or not (options.rehearse or bench.reaches_all()))


REHEARSED = "on a CPU, a tiny model, TRL without Liger (its kernels need a GPU): no figure below means anything"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed on one GPU: sftc, plain Megatron and TRL with Liger.")
    parser.add_argument("--only", nargs="+", choices=SIDES, default=list(SIDES), help="these sides")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=list(TABLES), help="these tables")
    parser.add_argument(
        "--batch", nargs="+", type=int, help="global batches, 8 and 32 unless given; packs have the first"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe of ours")
    parser.add_argument("--rows", type=Path, help="conversations in `messages`, JSON Lines")
    parser.add_argument("--tokenizer", type=Path, help="directory with tokenizer.json and tokenizer_config.json")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rehearse", action="store_true", help=REHEARSED)
    options = parser.parse_args()
    options.batch = options.batch or ([4] if options.rehearse else [8, 32])
    options.tokenizer = (
        options.tokenizer or (QUICKSTART / "tokenizer" if options.rehearse else tokenizers()[0])
    ).resolve()
    if any(batch < 1 or batch & (batch - 1) for batch in options.batch):
        parser.error("--batch takes powers of two, which every micro-batch divides")
    return options


def missing(sides: Sequence[str], *, rehearse: bool) -> list[str]:
    """What the machine lacks, each with the remedy."""
    found = []
    for package in ("torch", "megatron"):
        if find_spec(package) is None:
            found.append(f"{package} is not installed: `pip install '.[runtime]'`, or `make bench-gpu`, which does it")
    if "trl" in sides:
        needed = {"trl": "trl", "liger_kernel": "liger-kernel"} if not rehearse else {"trl": "trl"}
        lacking = [package for module, package in needed.items() if find_spec(module) is None]
        if lacking:
            found.append(f"not installed: {', '.join(lacking)}; {REMEDY}, or leave TRL out with `--only ours plain`")
    if find_spec("torch") is not None and not rehearse:
        import torch

        if not torch.cuda.is_available():
            found.append(
                f"torch {torch.__version__} finds no GPU here: run it on a machine with an NVIDIA GPU, or see every "
                "part of it work on this CPU with `python tests/bench/gpu_speed.py --rehearse`"
            )
    return found


class Bench:
    """All cases, one after the other, in folders of their own under `place`."""

    def __init__(self, place: Path, options: argparse.Namespace, machine: dict[str, Any]) -> None:
        self._place, self._options, self._machine = place, options, machine
        self._shape: Shape = TINY if options.rehearse else FULL
        self._fits: dict[tuple[str, bool], int] = {}
        self.rows: list[Row] = []
        self._conversations = place / "rows.jsonl"
        if given := options.rows or (QUICKSTART / "train.jsonl" if options.rehearse else None):
            self._conversations.write_bytes(given.read_bytes())
        else:
            write_rows(self._conversations, CONVERSATIONS)
        equal_rows(self._conversations, place / "equal.jsonl", self._shape.seq_length)

    def cases(self) -> list[Case]:
        chosen = []
        for table in self._options.table:
            for batch in self._options.batch if table == "equal" else self._options.batch[:1]:
                sides = [side for side in self._options.only if table == "equal" or side != "plain"]
                chosen += [self._case(side, table, batch) for side in sides]
        return chosen

    def _case(self, side: str, table: str, batch: int) -> Case:
        warm, counted = (1, 2) if self._options.rehearse else iterations(side, batch)
        return Case(
            side=side,
            packed=table == "packed",
            batch=batch,
            micro=1,
            warm=warm,
            counted=counted,
            cpu=self._options.rehearse,
            shape=self._shape,
            tokenizer=str(self._options.tokenizer),
            rows=str(self._conversations if table == "packed" else self._place / "equal.jsonl"),
        )

    def run(self, case: Case) -> None:
        """Adds a row, whatever happens."""
        key, began = (case.side, case.packed), time.monotonic()
        micros = [micro for micro in MICROS[case.side] if micro <= self._fits.get(key, case.batch)]
        row = Row(side=case.side, table="packed" if case.packed else "equal", batch=case.batch, failed="does not fit")
        for micro in (1,) if key == ("ours", True) else micros:  # packs go one at a time
            folder = Path(tempfile.mkdtemp(dir=self._place))
            sized = replace(case, micro=micro)
            try:
                row = Row.of(sized, SIDES[case.side](sized, folder, self._options.set), self._machine["tflops"])
            except DoesNotFit:
                say(f"{case.name}: a micro-batch of {micro} does not fit")
                continue
            except Exception as error:  # whatever it is, the other sides go on: time on a GPU is dear
                row = replace(row, failed=f"{type(error).__name__}: {error}".splitlines()[0])
                say(f"{case.name} failed: {error}")
            self._fits[key] = micro
            break
        self.rows.append(row)
        if not row.failed:
            say(f"{case.name}: {row.tokens_per_second:,.0f} tokens/s, {time.monotonic() - began:,.0f} s in all")

    def reaches_all(self) -> bool:
        return all(verdict["reached"] is not False for verdict in verdicts(self.rows))

    def summary(self) -> dict[str, Any]:
        return {
            "machine": self._machine,
            "versions": versions(),
            "rows": [{name: getattr(row, name) for name in Row.__slots__} for row in self.rows],
            "verdicts": verdicts(self.rows),
            "rehearsal": self._options.rehearse,
        }

    def report(self) -> str:
        machine = self._machine
        memory = f", {machine['memory_bytes'] / GIB:.0f} GiB" if machine["memory_bytes"] else ""
        lines = [
            f"{machine['device']}{memory}; CUDA {machine['cuda']}; Python {sys.version.split()[0]}; "
            + ", ".join(f"{name} {found}" for name, found in versions().items()),
            f"bf16 torch.matmul {machine['size']}^3: {machine['tflops']:,.4g} TFLOP/s",
            f"{self._shape.matmul_parameters:,} parameters, {self._shape.seq_length:,} tokens a row, "
            f"{self._shape.flops_per_token:,} FLOPs a token, tokenizer {self._options.tokenizer.name}",
        ]
        for table, title in TABLES.items():
            if rows := [row for row in self.rows if row.table == table]:
                lines += [f"\n{title}\n", *as_table(rows)]
        lines += ["", *starts(self.rows), ""]
        for verdict in verdicts(self.rows):
            lines.append(spelt(verdict, judged=not self._options.rehearse))
        return "\n".join(lines)


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
