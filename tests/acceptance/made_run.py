"""Run directories as a training would have left them."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sftc.runtime.answers.answer import Answer
from sftc.runtime.answers.log import AnswerLog
from sftc.runtime.bundle import read_bundle
from sftc.runtime.metrics import Metrics
from sftc.runtime.record import RunRecord, keep_build

DEFINITIONS = {
    "exact_match": "the text that the pattern finds in the answer is that in the reference",
    "bleu": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1",
    "rouge": "rouge-score 0.1.2, use_stemmer=False",
}


def write_run(
    folder: Path,
    build: Path,
    iterations: int,
    *,
    valid_every: int = 0,
    not_finite: Iterable[int] = (),
    starts: Iterable[Mapping[str, Any]] = ({"iteration": 0, "outcome": "complete", "at": None},),
) -> Path:
    """What a training of so many iterations would have left."""
    bundle = read_bundle(build)
    keep_build(folder, build, bundle.files)
    for start in starts:
        facts = {key: value for key, value in start.items() if key not in ("outcome", "why", "at", "hours")}
        record = RunRecord(folder, name="quickstart", manifest=bundle.digest)
        record.started(**{"start": "random", "device": "cpu", "world_size": 1, "arguments": ["--lr", "1"], **facts})
        if "outcome" in start:
            at = start["at"] or iterations
            record.ended(iteration=at, outcome=start["outcome"], why=start.get("why"))
    content = json.loads((folder / "run.json").read_text())
    for kept, start in zip(content["starts"], starts, strict=True):
        moments = [f"2026-01-01T{hour:02}:00:00+00:00" for hour in start.get("hours", (0, 1))]
        kept |= dict(zip(("started", "ended"), moments, strict=True)) if "ended" in kept else {"started": moments[0]}
    (folder / "run.json").write_text(json.dumps(content))
    gone = set(not_finite)
    with (folder / "metrics.jsonl").open("w") as file:
        for at in range(1, iterations + 1):
            noise = (at * 7919 % 1009) / 1009 - 0.5
            loss = None if at in gone else 0.9 + 6 * math.exp(-7 * at / iterations) + 0.2 * noise
            line = {
                "iteration": at,
                "lm_loss": loss,
                "learning_rate": 1e-5 * (1 + math.cos(math.pi * at / iterations)),
                "grad_norm": loss and loss / 2,
                "tokens_per_second": 310_000 * (1 + 0.1 * noise),
                "memory_bytes": 40_000_000_000,
                "supervised_tokens": 20_000,
            }
            file.write(json.dumps(line) + "\n")
            if valid_every and at % valid_every == 0:
                file.write(json.dumps({"iteration": at, "valid_loss": 1 + 6 * math.exp(-7 * at / iterations)}) + "\n")
    return folder


def write_answers(folder: Path, iterations: Iterable[int], *, count: int = 64, text: str = "") -> Path:
    """Evaluations with so many answers, right more often the later, and their scores. `text` stands in all of them."""
    at = list(iterations)
    log, metrics = AnswerLog(folder, resumed_at=10**9), Metrics(folder, resumed_at=10**9)
    for place, iteration in enumerate(at, start=1):
        share = place / len(at)
        matches = [None if row % 13 == 12 else (row * 37 % 100) / 100 < 0.8 * share for row in range(count)]
        answers = [made_answer(row, match, iteration, text) for row, match in enumerate(matches)]
        log.write(iteration, answers, matches)
        exact = sum(match is True for match in matches) / max(sum(match is not None for match in matches), 1)
        scores = {
            "exact_match": exact,
            "token_accuracy": 0.5 + 0.45 * share,
            "perplexity": 1 + 30 * math.exp(-5 * share),
        }
        scores |= {"bleu": 40 * share, "chrf": None if place == 2 else 55 * share}
        scores |= {
            "rouge1": 0.6 * share,
            "rouge2": 0.4 * share,
            "rougeL": 0.5 * share,
            "answer_length": 30 + 10 * share,
        }
        counts = {"answers": count, "unfinished": sum(one.finish_reason == "length" for one in answers)}
        metrics.write(iteration=iteration, **{f"valid_{name}": value for name, value in {**scores, **counts}.items()})
    log.close()
    metrics.close()
    (folder / "scores.json").write_text(json.dumps(DEFINITIONS))
    return folder


def made_answer(row: int, match: bool | None, iteration: int, text: str) -> Answer:
    """Every eleventh is long and was cut."""
    one, two = 12 + row * 7 % 80, 3 + row % 9
    reference = f"{one} boxes hold {two} pens each, so there are {one} * {two} = {one * two} pens.\n#### {one * two}"
    answer = reference if match else f"There are {one} + {two} pens.\n#### {one + two}"
    is_cut = row % 11 == 10
    question = f"A shop has {one} boxes with {two} pens in each. How many pens are there?{text}"
    return Answer(
        row=3 * row,
        question=question,
        prompt=f"<|im_start|>system\nYou are a patient teacher.<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n",
        reference=reference + text,
        answer=(f"Let us count from the start. (iteration {iteration}) " * 40 if is_cut else answer) + text,
        finish_reason="length" if is_cut else "stop",
        tokens=256 if is_cut else 20 + row,
    )
