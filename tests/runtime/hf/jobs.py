"""Recipes that start from Hugging Face weights, compiled by sftc, with a forward step that keeps the logits."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from build_dir import replace_step, write_pointer
from click.testing import CliRunner
from ranks import PYTHON, environment
from ruamel.yaml import YAML
from tiny_models import MODELS, RAW, RECIPE, SEQ_LENGTH

from sftc.compiler.cli import cli
from sftc.runtime.zigzag import in_order

ROOT = Path(__file__).resolve().parents[3]
STEP = Path(__file__).with_name("logits_step.py")
STILL = {"train_iters": 1, "lr": 1e-30, "min_lr": 0.0, "weight_decay": 0.0}  # lost in every weight: they stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Model `model` of tiny_models on `ranks` ranks; `parallel` and `train` are sections of the recipe."""

    model: str
    ranks: int = 1
    parallel: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)

    def recipe(self, load: str) -> dict[str, Any]:
        extra = {**self.changes}
        return {
            "name": "hf",
            "task": {"is_instruction_dataset": True},
            "model": {
                **RECIPE,
                **MODELS[self.model][2],
                "make_vocab_size_divisible_by": 2,
                "load": load,
                **extra.pop("model", {}),
            },
            "tokenizer": {"path": str(ROOT / "recipes/quickstart/tokenizer")},
            "data": {
                "train_data_path": "train.jsonl",
                "valid_data_path": "valid.jsonl",
                "num_workers": 0,
                "padding": "max_length",
            },
            "train": {
                "global_batch_size": 4,
                "micro_batch_size": 4,
                "seq_length": SEQ_LENGTH,
                "precision": "fp32",
                **STILL,
                **self.train,
            },
            "eval": {"eval_interval": self.train.get("train_iters", 1), "eval_iters": 1},
            "parallel": {**self.parallel},
            "launch": {"nproc_per_node": self.ranks, "device": "cpu"},
            "megatron": {"args": RAW.get(self.model, {})},
            **extra,
        }


def compile_job(folder: Path, recipe: dict[str, Any]) -> Path:
    """The build dir in `folder`, with the forward step of the tests in the place of the generated one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "recipe.yaml").open("w") as file:
        YAML().dump(recipe, file)
    build = folder / "build"
    ended = CliRunner().invoke(cli, ["compile", str(folder / "recipe.yaml"), "-o", str(build)])
    assert ended.exit_code == 0, ended.output + repr(ended.exception)
    replace_step(build, STEP.read_text())
    write_pointer(build, folder / "runs/hf")
    return build


def run_jobs(folder: Path, jobs: dict[str, tuple[Path, int]]) -> None:
    """`jobs` are (folder with its build dir, ranks), by name. All run; how each ended is in its `status`."""
    plan = [(str(place), "build", ranks) for place, ranks in jobs.values()]
    (folder / "jobs.json").write_text(json.dumps(plan))
    command = [PYTHON, str(Path(__file__).with_name("forked_ranks.py")), str(folder / "jobs.json")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


def require_success(place: Path) -> None:
    assert (place / "status").read_text() == "0", (place / "stderr").read_text()[-4000:]


def kept_logits(place: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [b, s] and logits [b, s, vocabulary] of the last evaluation, from the slices of tensor-parallel ranks or
    those of context-parallel ones, which hold a part of the sequence each.
    """
    kept = [torch.load(path) for path in sorted(place.glob("logits.*.pt"))]
    if kept[0]["tokens"].shape[1] < SEQ_LENGTH:
        parts = [torch.stack([one[key].transpose(0, 1) for one in kept]) for key in ("tokens", "logits")]
        tokens, logits = (in_order(part).transpose(0, 1) for part in parts)
        return tokens, logits
    return kept[0]["tokens"], torch.cat([one["logits"] for one in kept], dim=-1)
