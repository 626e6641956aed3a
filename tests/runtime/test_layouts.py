"""Every layout computes what one process computes: from recipes alone, on real rows, from one set of weights."""

import json
import subprocess
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ranks import PYTHON, environment
from ruamel.yaml import YAML

from sftc.compiler.cli import cli
from sftc.runtime.data.prepare import prepare
from sftc.runtime.data.settings import Columns, DataSettings
from sftc.runtime.metrics import read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
ROOT = Path(__file__).resolve().parents[2]
STEPS = 5
ROWS = 16

DENSE = {"num_layers": 4}
MOE = {**DENSE, "num_experts": 4, "moe_router_topk": 2, "moe_ffn_hidden_size": 96, "moe_aux_loss_coeff": 0.0}

# What each job adds to the recipe, its ranks, and the job that it must agree with.
type Changes = dict[str, dict[str, Any]]
type Job = tuple[Changes, int, str]
JOBS: dict[str, Job] = {
    "one": ({}, 1, "one"),
    "padded to seq_length": ({"data": {"padding": "max_length"}}, 1, "one"),
    "data": ({}, 2, "one"),
    "distributed optimizer": ({"parallel": {"use_distributed_optimizer": True}}, 2, "one"),
    "tensor": ({"parallel": {"tensor_model_parallel_size": 2}}, 2, "one"),
    "tensor, sequence": ({"parallel": {"tensor_model_parallel_size": 2, "sequence_parallel": True}}, 2, "one"),
    "pipeline": ({"parallel": {"pipeline_model_parallel_size": 2}}, 2, "one"),
    "virtual pipeline": (
        {"parallel": {"pipeline_model_parallel_size": 2, "num_virtual_stages_per_pipeline_rank": 2}},
        2,
        "one",
    ),
    "context": ({"parallel": {"context_parallel_size": 2}}, 2, "one"),
    "tensor, data": ({"parallel": {"tensor_model_parallel_size": 2}}, 4, "one"),
    "pipeline, context": ({"parallel": {"pipeline_model_parallel_size": 2, "context_parallel_size": 2}}, 4, "one"),
    "micro-batch of 8": ({"train": {"micro_batch_size": 8}}, 1, "one"),
    "micro-batch of 4": ({"train": {"micro_batch_size": 4}}, 2, "one"),
    # Sixteen rows, all of them in every batch: as samples of their own, and in packs.
    "rows": ({}, 1, "rows"),
    "epochs": ({"train": {"train_iters": None, "epochs": STEPS}}, 1, "rows"),
    "packs": ({"data": {"packing": True}}, 1, "rows"),
    "packs, context": ({"data": {"packing": True}, "parallel": {"context_parallel_size": 2}}, 2, "rows"),
    "experts: one": ({"model": MOE}, 1, "experts: one"),
    "experts": ({"model": MOE, "parallel": {"expert_model_parallel_size": 2}}, 2, "experts: one"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Rows, what reads them, and a tokenizer: GSM8K and SmolLM2's where they are, else those of the repository."""

    rows: Path
    reading: dict[str, Any]
    tokenizer: Path
    vocab: int

    @staticmethod
    def find() -> "Given":
        shared, quickstart = ROOT.parent / "shared", ROOT / "recipes/quickstart"
        rows, tokenizer = shared / "data/gsm8k/train.jsonl", shared / "tokenizers/smollm2"
        if rows.is_file():
            reading = {"format": "prompt_completion", "columns": {"prompt": "question", "completion": "answer"}}
            return Given(rows=rows, reading=reading, tokenizer=tokenizer, vocab=49152)
        return Given(
            rows=quickstart / "train.jsonl",
            reading={"format": "messages"},
            tokenizer=quickstart / "tokenizer",
            vocab=512,
        )


def recipe(folder: Path, given: Given, ranks: int, changes: Changes) -> dict[str, Any]:
    """A small model and eight rows in a batch, with `changes`."""
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
        "train": {"train_iters": STEPS, "global_batch_size": 8, "seq_length": 160, "precision": "fp32", "lr": 1.0e-3},
        "launch": {"nproc_per_node": ranks, "device": "cpu"},
    }
    for section, values in changes.items():
        sections.setdefault(section, {}).update(values)
    return {"name": "layout", **sections}


def write_job(folder: Path, name: str, content: dict[str, Any]) -> tuple[str, str, int]:
    """What forked.py takes, for a recipe that is written and compiled."""
    place = folder / name
    place.mkdir()
    with (place / "recipe.yaml").open("w") as file:
        YAML().dump(content, file)
    ended = CliRunner().invoke(cli, ["compile", str(place / "recipe.yaml"), "-o", str(place / "build")])
    assert ended.exit_code == 0, ended.output
    return str(place), "build", content["launch"]["nproc_per_node"]


def packs(folder: Path, given: Given, multiple: int) -> int:
    """The number of packs that all rows of `given` make."""
    columns = {"columns": Columns(**columns)} if (columns := given.reading.get("columns")) else {}
    settings = DataSettings(
        train_data_path=given.rows,
        format=given.reading["format"],
        tokenizer_path=given.tokenizer,
        store_path=folder / "store",
        seq_length=512,
        vocab_size=given.vocab,
        packing_multiple=multiple,
        **columns,
    )
    return prepare(settings).samples("train")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[float, float]]]:
    """Loss and gradient norm of every iteration, by job."""
    folder, given = tmp_path_factory.mktemp("layouts"), Given.find()
    few = replace(given, rows=folder / "few.jsonl")
    few.rows.write_text("".join(given.rows.read_text().splitlines(keepends=True)[:ROWS]))
    jobs = []
    for kind, model in (("one", {}), ("experts: one", MOE)):
        random: Changes = {"model": {**model, "init": "random"}, "train": {"train_iters": 1}}
        jobs.append(write_job(folder, f"weights of {kind}", recipe(folder, given, 1, random)))
    for name, (changes, ranks, reference) in JOBS.items():
        weights = "experts: one" if reference == "experts: one" else "one"
        load = str(folder / f"weights of {weights}" / "runs/layout/checkpoints")
        content = recipe(folder, few if reference == "rows" else given, ranks, changes)
        content["model"]["load"] = load
        if reference == "rows":
            content["train"] |= {"seq_length": 512, "global_batch_size": ROWS}
        if content["data"].get("packing"):
            content["train"]["global_batch_size"] = packs(folder, few, 2 * ranks if ranks > 1 else 1)
        jobs.append(write_job(folder, name, content))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [PYTHON, str(Path(__file__).with_name("forked.py")), str(folder / "jobs.json")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {}
    for name in JOBS:
        lines = read(folder / name / "runs/layout/metrics.jsonl")
        found[name] = [(line["lm_loss"], line["grad_norm"]) for line in lines if "lm_loss" in line]
    return found


@pytest.mark.parametrize("name", [name for name, (_, _, reference) in JOBS.items() if name != reference])
def test_a_layout_computes_what_one_process_computes(name: str, learnt: dict[str, list[tuple[float, float]]]) -> None:
    reference = learnt[JOBS[name][2]]
    assert len(learnt[name]) == len(reference) == STEPS
    for step, (found, wanted) in enumerate(zip(learnt[name], reference, strict=True), start=1):
        assert found == pytest.approx(wanted, rel=1e-4), f"iteration {step}"


def test_the_weights_learn(learnt: dict[str, list[tuple[float, float]]]) -> None:
    """Or all layouts would agree on nothing."""
    for name in ("one", "rows", "experts: one"):
        losses = [loss for loss, _ in learnt[name]]
        assert losses[-1] < losses[0] - 0.1
