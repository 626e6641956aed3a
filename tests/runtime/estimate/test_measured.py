"""The estimate against what Megatron holds: real runs of tiny models, every component of every rank within 5 %."""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
sys.path.insert(0, str(Path(__file__).parents[1]))

from build_dir import replace_step, write_pointer  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from ranks import PYTHON, environment  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402

from sftc.compiler.cli import cli  # noqa: E402
from sftc.compiler.compile import check_recipe  # noqa: E402
from sftc.compiler.estimate import estimate  # noqa: E402
from sftc.compiler.estimate.memory import moments  # noqa: E402
from sftc.compiler.estimate.sizes import sizes_of  # noqa: E402
from sftc.compiler.estimate.stages import stages  # noqa: E402
from sftc.compiler.plan import Plan  # noqa: E402

FORKED = Path(__file__).parents[1] / "hf/forked_ranks.py"
STEP = Path(__file__).with_name("measured_step.py").read_text()
WITHIN = 0.05

MOE = {"num_experts": 4, "moe_router_topk": 2, "moe_ffn_hidden_size": 192}
QWEN3 = {"qk_layernorm": True, "untie_embeddings_and_output_weights": False}
GPT2 = {
    "swiglu": False,
    "normalization": "LayerNorm",
    "add_bias_linear": True,
    "position_embedding_type": "learned_absolute",
    "num_query_groups": 8,
}
FULL = {"recompute_granularity": "full"}
PACKS = {"data": {"packing": True, "padding": None}, "train": {"micro_batch_size": 1}}
TP, PP, CP, EP = (f"{name}_parallel_size" for name in ("tensor_model", "pipeline_model", "context", "expert_model"))

# What each job adds to the recipe, by section, and its ranks.
JOBS: dict[str, tuple[dict[str, dict[str, Any]], int]] = {
    "one": ({}, 1),
    "selective": ({"train": {"recompute_granularity": "selective"}}, 1),
    "full, uniform": ({"train": {**FULL, "recompute_method": "uniform", "recompute_num_layers": 2}}, 1),
    "full, block": ({"train": {**FULL, "recompute_method": "block", "recompute_num_layers": 3}}, 1),
    "fp32, distributed optimizer": (
        {"train": {"precision": "fp32"}, "parallel": {"use_distributed_optimizer": True}},
        2,
    ),
    "saving": ({"parallel": {"use_distributed_optimizer": True}}, 2),
    "TP": ({"parallel": {TP: 2}, "model": GPT2}, 2),
    "fused loss": ({"train": {"fused_linear_cross_entropy": True}}, 1),
    "fused loss, TP, sequence": (
        {"train": {"fused_linear_cross_entropy": True}, "parallel": {TP: 2, "sequence_parallel": True}},
        2,
    ),
    "TP, sequence": ({"parallel": {TP: 2, "sequence_parallel": True}}, 2),
    "PP, tied": ({"parallel": {PP: 2}, "model": QWEN3}, 2),
    "PP, uneven": ({"parallel": {PP: 2}, "megatron": {"args": {"decoder_first_pipeline_num_layers": 3}}}, 2),
    "PP, a layout": ({"parallel": {PP: 2}, "megatron": {"args": {"pipeline_model_parallel_layout": "E|tt|tt|L"}}}, 2),
    "virtual PP": ({"parallel": {PP: 2, "num_virtual_stages_per_pipeline_rank": 2}}, 2),
    "CP": ({"parallel": {CP: 2}}, 2),
    "packs": (PACKS, 1),
    "EP": ({"model": MOE, "parallel": {EP: 2}}, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What each rank held, and the bytes of the checkpoint, 0 where there is none."""

    plan: Plan
    ranks: list[dict[str, int]]
    checkpoint: int


def recipe(name: str, ranks: int, changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    sections: dict[str, dict[str, Any]] = {
        "task": {"is_sft": True},
        "model": {
            "num_layers": 4,
            "hidden_size": 128,
            "ffn_hidden_size": 384,
            "num_attention_heads": 8,
            "num_query_groups": 4,
            "vocab_size": 1000,
            "max_position_embeddings": 256,
            "init": "random",
        },
        "tokenizer": {"path": "unused"},
        "data": {"train_data_path": "unused.jsonl", "num_workers": 0, "padding": "max_length"},
        "train": {"train_iters": 1, "global_batch_size": 8, "micro_batch_size": 2, "seq_length": 128, "lr": 1.0e-3},
        "launch": {"nproc_per_node": ranks, "device": "cpu"},
    }
    for section, values in changes.items():
        sections.setdefault(section, {}).update(values)
    return {"name": "saving" if name == "saving" else "measured", **sections}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    folder = tmp_path_factory.mktemp("estimate")
    jobs = []
    for name, (changes, ranks) in JOBS.items():
        place = folder / name
        place.mkdir()
        content = recipe(name, ranks, changes)
        with (place / "recipe.yaml").open("w") as file:
            YAML().dump(content, file)
        ended = CliRunner().invoke(cli, ["compile", str(place / "recipe.yaml"), "-o", str(place / "build")])
        assert ended.exit_code == 0, ended.output
        replace_step(place / "build", STEP)
        write_pointer(place / "build", place / "runs" / content["name"])
        jobs.append((str(place), "build", ranks))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [PYTHON, str(FORKED), str(folder / "jobs.json")], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {name: _read(folder / name, ranks) for name, (_, ranks) in JOBS.items()}


def _read(place: Path, ranks: int) -> Measured:
    assert (place / "status").read_text() == "0", (place / "stderr").read_text()[-4000:]
    plan = check_recipe(place / "recipe.yaml", "recipe.yaml").plan
    assert plan is not None
    return Measured(
        plan=plan,
        ranks=[json.loads((place / f"measured.{rank}.json").read_text()) for rank in range(ranks)],
        checkpoint=sum(path.stat().st_size for path in place.glob("runs/*/checkpoints/iter_*/*.distcp")),
    )


@pytest.mark.parametrize("name", JOBS)
def test_every_component_is_within_five_percent(name: str, measured: dict[str, Measured]) -> None:
    found = measured[name]
    sizes = sizes_of(found.plan)
    memory = estimate(found.plan).stages
    per_stage = len(found.ranks) // sizes.pp
    for stage in stages(found.plan, sizes):
        ranks = found.ranks[stage.rank * per_stage : (stage.rank + 1) * per_stage]
        wanted = {
            "weights": memory[stage.rank].weights,
            "gradients": memory[stage.rank].gradients,
            "optimizer": memory[stage.rank].optimizer,
            "activations": max(moment.saved for moment in moments(sizes, stage)),
        }
        for component, size in wanted.items():
            # Which rank of a stage gets more of the routed tokens is the router's choice: the mean is estimated.
            held = sum(rank[component] for rank in ranks) / len(ranks)
            assert size == pytest.approx(held, rel=WITHIN), f"{component} of stage {stage.rank}"


def test_a_checkpoint_is_as_large_as_estimated(measured: dict[str, Measured]) -> None:
    found = measured["saving"]
    disk = estimate(found.plan).disk
    assert disk.count == 1
    assert disk.checkpoint == pytest.approx(found.checkpoint, rel=WITHIN)


def test_what_is_recomputed_is_not_kept(measured: dict[str, Measured]) -> None:
    """Or the measurement would not tell one setting from another."""
    kept = {name: measured[name].ranks[0]["activations"] for name in ("one", "selective", "full, block")}
    assert kept["one"] > kept["selective"] > kept["full, block"]


def test_a_fused_loss_keeps_no_logits(measured: dict[str, Measured]) -> None:
    """256 tokens of 1000 float32."""
    kept = {name: measured[name].ranks[0]["activations"] for name in ("one", "fused loss")}
    assert kept["one"] - kept["fused loss"] > 0.95 * 256 * 1000 * 4
