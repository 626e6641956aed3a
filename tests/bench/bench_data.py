"""How fast data is prepared: `make bench-data`. A markdown table of ratios, all measured in one run on one machine.

    python tests/bench/bench_data.py [--rows N] [--memory-rows N] [--repeats N] [--json FILE]

GSM8K and the tokenizers in `../shared` where they are, else the rows and the tokenizer of the quickstart; rows are
repeated under a number of their own. Speeds are the best of the repeats, which alternate between what is compared. The
status is 1 if a target is missed. TRL is compared where it is installed (the extra `bench`).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from against_trl import trl_seconds
from memory import peak_of_preparing

from sftc.runtime.data.formats import read_conversation
from sftc.runtime.data.mask import MaskFinder
from sftc.runtime.data.packing import plan_packs
from sftc.runtime.data.prepare import prepare
from sftc.runtime.data.settings import Columns, DataSettings
from sftc.runtime.data.template import ChatTemplate, find_template
from sftc.runtime.data.tokens import TextTokenizer

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
TEXTS = 2000  # at a time, so that what the library returns stays small
GIB = 1 << 30


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--memory-rows", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        place = Path(folder)
        for tokenizer in tokenizers():
            results.append(against_encode_batch(place, tokenizer, options.rows, options.repeats))
        results.append(packing())
        results.append(memory(place, options.memory_rows))
        results += against_trl(place, tokenizers()[0], min(options.rows, 40_000))
    print(f"\n{cores} cores, best of {options.repeats}\n")
    print("| what | measured | figure | target | |")
    print("|---|---|---|---|---|")
    for result in results:
        print(
            f"| {result['what']} | {result['measured']} | {result['figure']} | {result['target']} | {result['state']} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"cores": cores, "results": results}, indent=2) + "\n")
    return int(any(result["state"] == "MISSED" for result in results))


def tokenizers() -> list[Path]:
    found = [path for path in (SHARED / "tokenizers/smollm2", SHARED / "tokenizers/qwen3") if path.is_dir()]
    return found or [ROOT / "recipes/quickstart/tokenizer"]


def write_rows(path: Path, count: int) -> None:
    """Conversations of a question and an answer, no two of them equal."""
    gsm8k = SHARED / "data/gsm8k/train.jsonl"
    if gsm8k.is_file():
        pairs = [(row["question"], row["answer"]) for row in map(json.loads, gsm8k.open())]
    else:
        rows = map(json.loads, (ROOT / "recipes/quickstart/train.jsonl").open())
        pairs = [(row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in rows]
    with path.open("w") as file:
        for number in range(count):
            question, answer = pairs[number % len(pairs)]
            messages = [
                {"role": "user", "content": f"{number}. {question}"},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def settings_for(place: Path, tokenizer: Path, **more: Any) -> DataSettings:
    return DataSettings(
        train_data_path=place / "rows.jsonl",
        format="messages",
        tokenizer_path=tokenizer,
        store_path=place / "store",
        seq_length=2048,
        vocab_size=1 << 20,
        **more,
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def against_encode_batch(place: Path, path: Path, rows: int, repeats: int) -> dict[str, Any]:
    """Reading, rendering, proving, tokenising and storing, against tokenising the rendered texts and nothing else."""
    write_rows(place / "rows.jsonl", rows)
    tokenizer = TextTokenizer.load(path, 1 << 20)
    finder = MaskFinder(ChatTemplate(find_template(path, tokenizer.config, None), tokenizer.special_tokens), tokenizer)
    texts = [
        finder.render(read_conversation(json.loads(line), "messages", Columns()), "assistant").text
        for line in (place / "rows.jsonl").open()
    ]

    def raw() -> None:
        for at in range(0, rows, TEXTS):
            tokenizer.backend.encode_batch(texts[at : at + TEXTS], add_special_tokens=False)

    def ours() -> int:
        shutil.rmtree(place / "store", ignore_errors=True)
        return int(prepare(settings_for(place, path)).summary["splits"]["train"]["tokens"])

    bare = whole = float("inf")
    for _ in range(repeats):
        bare = min(bare, timed(raw)[0])
        seconds, tokens = timed(ours)
        whole = min(whole, seconds)
        report(f"{path.name}: encode_batch {rows / bare:,.0f} rows/s, prepared {rows / whole:,.0f} rows/s")
    return verdict(
        f"{path.name}: tokens, proven masks and store of {rows:,} rows, against `encode_batch` alone",
        f"{rows / whole:,.0f} rows/s ({tokens / whole:,.0f} tokens/s) against {rows / bare:,.0f} rows/s",
        f"{bare / whole:.0%}",
        "at least 50 %",
        bare / whole >= 0.5,
    )


def packing() -> dict[str, Any]:
    lengths = np.clip(np.random.default_rng(1).lognormal(6.2, 0.9, 1_000_000), 1, 4096).astype(np.int64)
    seconds, packs = timed(lambda: plan_packs(lengths, 4096))
    use = lengths.sum() / (len(packs) * 4096)
    return verdict(
        "packs of 1,000,000 rows", f"{use:.2%} of all positions in use", f"{seconds:.2f} s", "under 3 s", seconds < 3
    )


def memory(place: Path, rows: int) -> dict[str, Any]:
    """Of the process that prepares short rows, and its workers."""
    report(f"preparing {rows:,} short rows")
    with (place / "rows.jsonl").open("w") as file:
        for number in range(rows):
            messages = [
                {"role": "user", "content": f"{number} + 1?"},
                {"role": "assistant", "content": str(number + 1)},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    shutil.rmtree(place / "store", ignore_errors=True)
    chosen = settings_for(place, tokenizers()[0], packing_multiple=1)
    seconds, peak = timed(lambda: peak_of_preparing(chosen))
    return verdict(
        f"resident memory, preparing and packing {rows:,} rows with all workers",
        f"{rows / seconds:,.0f} rows/s",
        f"{peak / GIB:.2f} GiB",
        "under 2 GiB",
        peak < 2 * GIB,
    )


def against_trl(place: Path, tokenizer: Path, rows: int) -> list[dict[str, Any]]:
    """TRL as it comes, which is one process, and, for the record, with one for each core."""
    what = f"{tokenizer.name}: tokens, masks and packs of {rows:,} rows, against TRL's SFTTrainer"
    write_rows(place / "rows.jsonl", rows)
    shutil.rmtree(place / "store", ignore_errors=True)
    seconds, _ = timed(lambda: prepare(settings_for(place, tokenizer, packing_multiple=1)))
    results = []
    cores = len(os.sched_getaffinity(0))
    for processes, target in ((None, "at least 3 x"), (cores, "")):
        named = what + (f" with dataset_num_proc={processes}" if processes else "")
        found = trl_seconds(place, tokenizer, seq_length=2048, processes=processes)
        if isinstance(found, str):
            results.append({"what": named, "measured": found, "figure": "", "target": target, "state": "skipped"})
            continue
        theirs, version = found
        measured = f"{rows / seconds:,.0f} rows/s against {rows / theirs:,.0f} rows/s of TRL {version}"
        is_met = not target or theirs / seconds >= 3
        results.append(verdict(named, measured, f"{theirs / seconds:.1f} x", target, is_met))
    return results


def verdict(what: str, measured: str, figure: str, target: str, is_met: bool) -> dict[str, Any]:
    return {
        "what": what,
        "measured": measured,
        "figure": figure,
        "target": target,
        "state": ("ok" if target else "") if is_met else "MISSED",
    }


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
