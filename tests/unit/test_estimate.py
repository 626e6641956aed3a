"""The formulas against published figures, the schedule against the papers, and what is said about a run."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sftc.compiler.compile import Checked, check_recipe
from sftc.compiler.estimate import Estimate, activations, estimate
from sftc.compiler.estimate.advice import advise, changed
from sftc.compiler.estimate.check import check_memory
from sftc.compiler.estimate.data import to_json
from sftc.compiler.estimate.memory import moments, rank_memory
from sftc.compiler.estimate.schedule import waiting
from sftc.compiler.estimate.sizes import NOT_FOLLOWED
from sftc.compiler.estimate.stages import stages
from sftc.compiler.estimate.text import WIDTH, render, verdict
from sftc.compiler.hardware import hardware_table
from sftc.compiler.options import option_table
from sftc.compiler.schemas import leaves

ROOT = Path(__file__).resolve().parents[2]

LLAMA_2_7B = {
    "num_layers": 32,
    "hidden_size": 4096,
    "ffn_hidden_size": 11008,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
LLAMA_2_70B = {
    "num_layers": 80,
    "hidden_size": 8192,
    "ffn_hidden_size": 28672,
    "num_attention_heads": 64,
    "num_query_groups": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
GPT_3 = {
    "num_layers": 96,
    "hidden_size": 12288,
    "ffn_hidden_size": 4 * 12288,
    "num_attention_heads": 96,
    "vocab_size": 51200,
    "max_position_embeddings": 2048,
    "position_embedding_type": "learned_absolute",
    "normalization": "LayerNorm",
    "swiglu": False,
    "add_bias_linear": True,
    "hidden_dropout": 0.1,
}
MIXTRAL_8X7B = {
    "num_layers": 32,
    "hidden_size": 4096,
    "ffn_hidden_size": 14336,
    "num_attention_heads": 32,
    "num_query_groups": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "num_experts": 8,
    "moe_router_topk": 2,
}
DISTRIBUTED = {"use_distributed_optimizer": True}


def checked(folder: Path, model: dict[str, Any], **sections: dict[str, Any]) -> Checked:
    content: dict[str, Any] = {
        "name": "run",
        "task": {"is_sft": True},
        "model": {**model, "load": "weights"},
        "tokenizer": {"path": "tokenizer"},
        "data": {"train_data_path": "rows.jsonl"},
        "train": {"train_iters": 1000, "global_batch_size": 256, "seq_length": 2048, "lr": 1.0e-5},
        "launch": {"nproc_per_node": 8},
    }
    for section, values in sections.items():
        content.setdefault(section, {}).update(values)
    path = folder / "recipe.yaml"
    with path.open("w") as file:
        YAML().dump(content, file)
    found = check_recipe(path, "recipe.yaml")
    assert found.plan is not None, found.diagnostics
    return found


def estimated(folder: Path, model: dict[str, Any], **sections: dict[str, Any]) -> Estimate:
    plan = checked(folder, model, **sections).plan
    assert plan is not None
    return estimate(plan)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [(LLAMA_2_7B, 6_738_415_616), (LLAMA_2_70B, 68_976_648_192), (MIXTRAL_8X7B, 46_702_792_704)],
)
def test_states_of_known_models(model: dict[str, Any], parameters: int, tmp_path: Path) -> None:
    """bf16 weights, fp32 gradients, fp32 masters and two moments: 2 + 4 + 12 bytes a parameter, the last / DP."""
    alone = estimated(tmp_path, model).fullest
    assert (alone.weights, alone.gradients, alone.optimizer) == (2 * parameters, 4 * parameters, 12 * parameters)
    shared = estimated(tmp_path, model, parallel=DISTRIBUTED).fullest
    assert shared.weights == alone.weights
    assert shared.optimizer == pytest.approx(12 * parameters / 8, abs=100)


@pytest.mark.parametrize(
    ("train", "bytes_each"),
    [
        ({"precision": "fp32"}, (4, 4, 8)),
        ({"precision": "fp16"}, (2, 2, 12)),
        ({"optimizer": "sgd"}, (2, 4, 8)),
    ],
)
def test_bytes_of_other_precisions(train: dict[str, Any], bytes_each: tuple[int, ...], tmp_path: Path) -> None:
    rank = estimated(tmp_path, LLAMA_2_7B, train=train).fullest
    held = rank.weights // bytes_each[0]
    assert held == 6_738_415_616
    assert (rank.weights, rank.gradients, rank.optimizer) == tuple(size * held for size in bytes_each)


def test_raw_options_that_change_a_size_are_followed(tmp_path: Path) -> None:
    raw = {"grad_reduce_in_bf16": True, "exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "fp8"}
    rank = estimated(tmp_path, LLAMA_2_7B, megatron={"args": raw}).fullest
    assert rank.gradients == rank.weights
    assert rank.optimizer == rank.weights // 2 * (4 + 2 + 1)


def test_other_raw_options_are_named(tmp_path: Path) -> None:
    found = estimated(tmp_path, LLAMA_2_7B, megatron={"args": {"cpu-offloading-num-layers": 2, "manual_gc": True}})
    assert found.sizes.not_followed == ("cpu_offloading_num_layers",)
    assert "not followed     cpu_offloading_num_layers" in render(found, [])


def test_the_options_that_are_not_followed_exist() -> None:
    known = {name.removeprefix("--").replace("-", "_") for name in option_table("0.19")}
    assert set(NOT_FOLLOWED) <= known


def test_a_model_is_divided_over_its_ranks(tmp_path: Path) -> None:
    """All ranks of one replica together hold the model, and norms as often as there are tensor-parallel ranks."""
    layout = {"tensor_model_parallel_size": 4, "sequence_parallel": True, "pipeline_model_parallel_size": 2}
    found = estimated(tmp_path, {**LLAMA_2_70B, "make_vocab_size_divisible_by": 1}, parallel=layout)
    norms = (2 * 80 + 1) * 8192
    assert sum(4 * stage.weights // 2 for stage in found.stages) == 68_976_648_192 + 3 * norms


def test_experts_are_divided_over_expert_parallel_ranks(tmp_path: Path) -> None:
    one = estimated(tmp_path, MIXTRAL_8X7B).fullest
    eight = estimated(tmp_path, MIXTRAL_8X7B, parallel={"expert_model_parallel_size": 8}).fullest
    experts = 32 * 8 * 3 * 4096 * 14336
    assert (one.weights - eight.weights) // 2 == experts * 7 // 8


@pytest.mark.parametrize("tp", [1, 8])
def test_a_gpt_layer_keeps_34_sbh(tp: int, tmp_path: Path) -> None:
    """Korthikanti et al. (2022), equation 6: 34·s·b·h / t bytes with sequence parallelism, scores not kept."""
    layout = {"tensor_model_parallel_size": tp, "sequence_parallel": tp > 1}
    found = estimated(tmp_path, GPT_3, parallel=layout, train={"micro_batch_size": 4})
    kept = activations.layer(found.sizes, has_experts=False)
    assert kept == pytest.approx(34 * 2048 * 4 * 12288 / tp, rel=0.001)


def test_full_recomputation_keeps_2_sbh(tmp_path: Path) -> None:
    """The same paper, section 4: the input of each layer, and one layer while it is made again."""
    full = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    found = estimated(tmp_path, GPT_3, train=full)
    (stage,) = stages(found.plan, found.sizes)
    input_of_layer = 2 * 2048 * 12288
    again = max(moments(found.sizes, stage), key=lambda moment: moment.recomputed)
    assert again.kept == pytest.approx(96 * input_of_layer, rel=0.01)  # and the embedding's dropout mask
    assert again.recomputed == pytest.approx(34 / 2 * input_of_layer, rel=0.001)


def test_flops_are_those_of_the_paper(tmp_path: Path) -> None:
    """Narayanan et al. (2021): 72·B·s·l·h²·(1 + s / 6h + V / 12lh) without recomputation, scores half for causality."""
    h, s, layers, vocab = 12288, 2048, 96, 51200
    work = estimated(tmp_path, GPT_3).work
    wanted = 72 * layers * h * h * (1 + s / (12 * h) + vocab / (12 * layers * h))
    assert work.flops_per_token == pytest.approx(wanted, rel=0.001)  # biases are left out of it
    assert work.flops_per_iteration == 256 * s * work.flops_per_token


def test_flops_are_about_six_for_each_active_parameter(tmp_path: Path) -> None:
    dense, sparse = estimated(tmp_path, LLAMA_2_70B).work, estimated(tmp_path, MIXTRAL_8X7B).work
    assert dense.flops_per_token == pytest.approx(6 * dense.parameters, rel=0.03)
    assert sparse.active_parameters == 12_879_925_248
    assert sparse.flops_per_token == pytest.approx(6 * sparse.active_parameters, rel=0.03)


def test_recomputation_is_a_third_more(tmp_path: Path) -> None:
    full = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    work = estimated(tmp_path, GPT_3, train=full).work
    assert work.executed_per_iteration == pytest.approx(work.flops_per_iteration * 4 / 3, rel=0.01)


@pytest.mark.parametrize("micro_batches", [2, 8, 64])
def test_stages_hold_fewer_micro_batches_towards_the_end(micro_batches: int) -> None:
    """1F1B: stage r of p waits for p - r of them, or for all if there are fewer."""
    for rank in range(4):
        steps = list(waiting(pp=4, vpp=1, rank=rank, micro_batches=micro_batches))
        assert max(steps) == (min(4 - rank, micro_batches),)


@pytest.mark.parametrize(("pp", "vpp"), [(2, 2), (4, 2), (8, 4)])
def test_interleaving_costs_what_the_paper_says(pp: int, vpp: int) -> None:
    """Korthikanti et al. (2022), section 4.2.3: 1 + (p - 1) / (p·m) times as much on the first stage."""
    most = max(sum(counts) for counts in waiting(pp=pp, vpp=vpp, rank=0, micro_batches=16 * pp))
    assert most / (pp * vpp) == pytest.approx(1 + (pp - 1) / (pp * vpp))


def test_every_forward_has_its_backward() -> None:
    """The steady state is as full as its beginning: nothing piles up."""
    steps = [sum(counts) for counts in waiting(pp=4, vpp=2, rank=1, micro_batches=64)]
    assert max(steps) == steps[-1]


def test_first_and_last_stage_differ(tmp_path: Path) -> None:
    model = {**LLAMA_2_70B, "transformer_impl": "transformer_engine"}
    found = estimated(tmp_path, model, parallel={"pipeline_model_parallel_size": 8})
    first, second, *_, last = found.stages
    assert first.weights - second.weights == 2 * 32000 * 8192
    assert last.weights - second.weights == 2 * (32000 * 8192 + 8192)
    assert first.in_flight == 8
    assert last.in_flight == 1
    assert (first.logits, last.logits) == (0, 2048 * 32000 * (4 + 2))  # a float32 softmax beside bf16 logits


def test_a_tied_output_is_a_copy_on_the_last_stage_only(tmp_path: Path) -> None:
    tied = {**LLAMA_2_7B, "untie_embeddings_and_output_weights": False}
    alone = estimated(tmp_path, tied)
    assert alone.fullest.weights == 2 * (6_738_415_616 - 32000 * 4096)
    split = estimated(tmp_path, tied, parallel={"pipeline_model_parallel_size": 2})
    assert sum(stage.weights for stage in split.stages) == 2 * 6_738_415_616
    assert split.disk == alone.disk


def test_the_optimizer_may_need_more_than_the_backward_pass(tmp_path: Path) -> None:
    """torch's AdamW makes the roots of all second moments at once: 4 bytes of each parameter."""
    found = estimated(tmp_path, LLAMA_2_7B, train={"seq_length": 16}).fullest
    assert found.at_step
    assert (found.activations, found.workspace) == (0, 4 * 6_738_415_616)
    fused = {**LLAMA_2_7B, "transformer_impl": "transformer_engine"}
    assert not estimated(tmp_path, fused, train={"seq_length": 16}).fullest.at_step
    assert not estimated(tmp_path, LLAMA_2_7B, train={"seq_length": 16, "fused_adam": True}).fullest.at_step


def test_checkpoints(tmp_path: Path) -> None:
    disk = estimated(tmp_path, LLAMA_2_7B, checkpoint={"save_interval": 300}).disk
    assert disk.checkpoint == 14 * 6_738_415_616
    assert disk.count == 4  # 300, 600, 900 and the last
    kept = estimated(tmp_path, LLAMA_2_7B, checkpoint={"save_interval": 300, "keep": 2}).disk
    assert (kept.count, kept.is_pruned) == (2, True)
    plenty = estimated(tmp_path, LLAMA_2_7B, checkpoint={"save_interval": 300, "keep": 9}).disk
    assert (plenty.count, plenty.is_pruned) == (4, False)


def test_adapters_are_all_that_has_gradients_and_states(tmp_path: Path) -> None:
    """Rank 16 on Llama 2 7B: 16 * (4096 + 12288 + 4096 + 4096 + 4096 + 22016 + 11008 + 4096) * 32 layers."""
    adapters = 16 * 65_792 * 32
    found = estimated(tmp_path, LLAMA_2_7B, lora={"rank": 16})
    rank = found.fullest
    assert rank.weights == 2 * (6_738_415_616 + adapters)
    assert (rank.gradients, rank.optimizer) == (4 * adapters, 12 * adapters)
    assert found.disk.checkpoint == 14 * adapters
    assert (found.work.parameters, found.work.trained_parameters) == (6_738_415_616, adapters)
    whole = estimated(tmp_path, LLAMA_2_7B).work
    saved = 2 * (6_738_415_616 - 4096 * (32000 + 65))  # but for the embedding and the norms
    assert whole.flops_per_token - found.work.flops_per_token == saved - 6 * adapters


def test_adapters_are_divided_with_the_model(tmp_path: Path) -> None:
    one = {"lora": {"rank": 8, "targets": ["linear_fc1", "linear_fc2"]}}
    split = {"expert_model_parallel_size": 4}
    found = estimated(tmp_path, MIXTRAL_8X7B, **one, parallel=split).fullest
    assert found.gradients == 4 * 8 * (4096 + 2 * 14336 + 14336 + 4096) * 2 * 32  # 2 of 8 experts
    halves = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
    found = estimated(tmp_path, LLAMA_2_7B, **one, parallel=halves).fullest
    assert found.gradients == 4 * 8 * (4096 + 11008 + 5504 + 4096) * 16


def test_epochs_have_no_length_yet(tmp_path: Path) -> None:
    found = estimated(tmp_path, LLAMA_2_7B, train={"train_iters": None, "epochs": 2})
    assert (found.work.iterations, found.work.tokens, found.disk.count) == (None, None, None)
    assert "known when the data is prepared" in render(found, [])


def test_the_menu_of_devices_is_the_table() -> None:
    (menu,) = (schema["enum"] for key, schema in leaves() if key == "launch.hardware")
    assert menu == [*hardware_table(), None]
    for device in hardware_table().values():
        assert device.source
        sold = int(device.sold_as.removesuffix(" GB"))
        assert sold * 10**9 < device.memory <= sold * 1024**3
        assert device.peak["bf16"]
        assert device.peak["fp8"] in (None, pytest.approx(2 * device.peak["bf16"], rel=0.01))


def test_time_is_flops_over_rate(tmp_path: Path) -> None:
    found = estimated(tmp_path, LLAMA_2_7B, launch={"hardware": "A100-80GB"})
    assert found.duration is not None
    assert found.duration.fastest == pytest.approx(found.work.flops_per_iteration / (8 * 312e12 * 0.5))
    assert found.duration.slowest == pytest.approx(2 * found.duration.fastest)
    staged = estimated(
        tmp_path, LLAMA_2_7B, launch={"hardware": "A100-80GB"}, parallel={"pipeline_model_parallel_size": 8}
    )
    assert staged.duration is not None
    assert staged.duration.fastest == pytest.approx(found.duration.fastest * (1 + 7 / 256))


def test_advice_is_what_the_changed_recipe_needs(tmp_path: Path) -> None:
    layout = {"launch": {"hardware": "H100"}, "train": {"seq_length": 4096}}
    found = checked(tmp_path, LLAMA_2_7B, **layout)
    assert found.plan is not None
    assert found.document is not None
    advice = advise(estimate(found.plan), found.document)
    assert advice
    for one in advice:
        sections: dict[str, dict[str, Any]] = {section: dict(values) for section, values in layout.items()}
        for key, value in one.changes.items():
            section, name = key.split(".")
            sections.setdefault(section, {})[name] = value
        again = estimated(tmp_path, LLAMA_2_7B, **sections)
        assert again.fits
        assert again.fullest.total == one.needs


def test_advice_takes_several_changes_where_one_is_not_enough(tmp_path: Path) -> None:
    found = checked(tmp_path, LLAMA_2_70B, launch={"hardware": "H100", "nnodes": 4}, train={"seq_length": 4096})
    assert found.plan is not None
    assert found.document is not None
    (advice,) = advise(estimate(found.plan), found.document)
    assert len(advice.changes) > 2
    assert estimate(changed(found.plan, advice.changes)).fits


def test_no_advice_where_nothing_helps(tmp_path: Path) -> None:
    found = checked(tmp_path, LLAMA_2_70B, launch={"hardware": "A100-40GB", "nproc_per_node": 1})
    assert found.plan is not None
    assert found.document is not None
    far = estimate(found.plan)
    assert advise(far, found.document) == []
    assert "take more of them, or a larger device" in render(far, [])


def test_a_run_on_the_cpu_is_not_warned_of(tmp_path: Path) -> None:
    found = checked(tmp_path, LLAMA_2_70B, launch={"hardware": "H100", "device": "cpu"})
    assert found.plan is not None
    assert found.document is not None
    assert not list(check_memory(found.plan, found.document))
    assert estimate(found.plan).fullest.overhead == 0


@pytest.mark.parametrize("hardware", [None, "H100", "A100-40GB"])
def test_bars_are_to_scale(hardware: str | None, tmp_path: Path) -> None:
    layout = {"pipeline_model_parallel_size": 2, **DISTRIBUTED}
    found = estimated(tmp_path, LLAMA_2_7B, parallel=layout, launch={"hardware": hardware} if hardware else {})
    lines = [line for line in render(found, []).splitlines() if line.startswith("  stage")]
    bars, rows = lines[:2], lines[2:]
    most = max(found.fullest.total, found.limit or 0)
    for stage, bar, row in zip(found.stages, bars, rows, strict=True):
        cells = bar.split()[2].replace("|", "")
        assert len(cells) == WIDTH
        assert len(cells.rstrip("·")) == round(stage.total / most * WIDTH)
        assert row.split()[-1] == bar.split()[-1]
    assert render(found, [], colour=True) != render(found, [])


def test_the_verdict_has_the_numbers(tmp_path: Path) -> None:
    found = estimated(tmp_path, LLAMA_2_7B, parallel=DISTRIBUTED, launch={"hardware": "H200"})
    assert verdict(found) == f"fits: {found.fullest.total / 2**30:.1f} of 140.4 GiB on its fullest rank"
    assert "fits" not in verdict(estimate(changed(found.plan, {"launch.hardware": None})))


def test_json_adds_up(tmp_path: Path) -> None:
    found = estimated(tmp_path, MIXTRAL_8X7B, launch={"hardware": "MI300X"})
    data = json.loads(json.dumps(to_json(found, [])))
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "workspace", "overhead")
    for stage in data["stages"]:
        assert sum(stage[part] for part in parts) == stage["total"]
    assert data["fullest_rank"] == max(stage["total"] for stage in data["stages"])
    assert data["device_memory"] == data["hardware"]["memory"] == hardware_table()["MI300X"].memory


def test_a_rank_is_as_full_as_its_fullest_moment(tmp_path: Path) -> None:
    found = estimated(tmp_path, GPT_3, parallel={"pipeline_model_parallel_size": 8})
    for stage in stages(found.plan, found.sizes):
        rank = rank_memory(found.sizes, stage)
        most = max(moment.total for moment in moments(found.sizes, stage))
        assert rank.at_step or rank.activations + rank.logits == most
