"""Small models as recipes, compiled and run many at a time after one import of Megatron (`forked.py`)."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from ranks import PYTHON, environment
from ruamel.yaml import YAML

from sftc.compiler.cli import cli
from sftc.runtime.metrics import MACHINE, read

ROOT = Path(__file__).resolve().parents[2]
DENSE = {"num_layers": 4}

type Changes = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Rows, what reads them, and a tokenizer: GSM8K and SmolLM2's where they are, else those of the repository."""

    rows: Path
    reading: dict[str, Any]
    tokenizer: Path
    vocab: int

    @staticmethod
    def find() -> "Given":
        shared = ROOT.parent / "shared"
        rows, tokenizer = shared / "data/gsm8k/train.jsonl", shared / "tokenizers/smollm2"
        if rows.is_file():
            reading = {"format": "prompt_completion", "columns": {"prompt": "question", "completion": "answer"}}
            return Given(rows=rows, reading=reading, tokenizer=tokenizer, vocab=49152)
        return Given.quickstart()

    @staticmethod
    def quickstart() -> "Given":
        quickstart = ROOT / "recipes/quickstart"
        return Given(
            rows=quickstart / "train.jsonl",
            reading={"format": "messages"},
            tokenizer=quickstart / "tokenizer",
            vocab=512,
        )


def recipe(folder: Path, given: Given, ranks: int, changes: Changes, *, steps: int = 5) -> dict[str, Any]:
    """A small model and eight rows in a batch, with `changes`; data is prepared in `folder`."""
    sections: dict[str, Any] = {
        "task": {"is_instruction_dataset": True},
        "model": {
            **DENSE,
            "hidden_size": 64,
            "ffn_hidden_size": 96,
            "num_attention_heads": 4,
            "num_query_groups": 2,
            "vocab_size": given.vocab,
            "max_position_embeddings": 512,
        },
        "tokenizer": {"path": str(given.tokenizer)},
        "data": {
            "train_data_path": str(given.rows),
            "on_overlong": "drop",
            "num_workers": 0,
            "store_path": str(folder / "store"),
            **given.reading,
        },
        "train": {"train_iters": steps, "global_batch_size": 8, "seq_length": 160, "precision": "fp32", "lr": 1.0e-3},
        "launch": {"nproc_per_node": ranks, "device": "cpu"},
    }
    for section, values in changes.items():
        sections.setdefault(section, {}).update(values)
    return {"name": "small", **sections}


def compile_job(place: Path, content: dict[str, Any]) -> tuple[str, str, int]:
    """What `run_jobs` takes, for a recipe that is written into `place` and compiled."""
    place.mkdir(exist_ok=True)
    with (place / "recipe.yaml").open("w") as file:
        YAML().dump(content, file)
    ended = CliRunner().invoke(cli, ["compile", str(place / "recipe.yaml"), "-o", str(place / "build")])
    assert ended.exit_code == 0, ended.output
    return str(place), "build", content["launch"]["nproc_per_node"]


def run_jobs(folder: Path, jobs: list[tuple[str, str, int]], *, failing: bool = False) -> None:
    """Each of `compile_job`, one after the other. All have to end well, or all badly."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [PYTHON, str(Path(__file__).with_name("forked.py")), str(folder / "jobs.json")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for place, _, _ in jobs:
        assert (Path(place, "status").read_text() != "0") == failing, Path(place, "stderr").read_text()[-4000:]


def lines_of(place: Path, key: str = "lm_loss") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that have `key`."""
    return [line for line in read(place / "runs/small/metrics.jsonl") if key in line]


def undated(place: Path) -> list[dict[str, Any]]:
    """The metrics without what depends on the machine."""
    return [{k: v for k, v in line.items() if k not in MACHINE} for line in lines_of(place)]


def forget(checkpoints: Path, at: int) -> None:
    """As if the run had been killed before it wrote anything after iteration `at`."""
    for folder in checkpoints.glob("iter_*"):
        if int(folder.name.removeprefix("iter_")) > at:
            shutil.rmtree(folder)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text(str(at))


def learnt(place: Path) -> list[tuple[float, float]]:
    """Loss and gradient norm of every iteration."""
    return [(line["lm_loss"], line["grad_norm"]) for line in lines_of(place)]
