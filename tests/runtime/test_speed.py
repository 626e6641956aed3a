"""What is said to make a run faster leaves its numbers alone, and can be taken up or left at any checkpoint."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small_jobs import Changes, Given, compile_job, forget, learnt, recipe, run_jobs, undated

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
STEPS, HALF = 12, 6
SAVED = Path("runs/small/checkpoints")
SMALL = {"num_layers": 2, "init": "random"}
LORA: Changes = {"lora": {"rank": 8, "alpha": 256}}  # beside the weights that `plain` has learnt
PACKS: Changes = {"data": {"packing": True}}
DROPOUT: Changes = {"model": {**SMALL, "hidden_dropout": 0.1}}
SHARDED: Changes = {"parallel": {"use_distributed_optimizer": True}}
OVERLAPPED: Changes = {"parallel": {**SHARDED["parallel"], "overlap_grad_reduce": True, "overlap_param_gather": True}}
STAGES: Changes = {"parallel": {"pipeline_model_parallel_size": 2}}
RECOMPUTE = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
BOTH = {"torch_compile": True, "fused_adam": True, "fused_linear_cross_entropy": True}


def said(**train: Any) -> Changes:
    return {"train": train}


# Each with what it adds to the recipe, its ranks, and the run that it must agree with, up to a relative difference.
type Job = tuple[Changes, int, str, float]
JOBS: dict[str, Job] = {
    "plain": ({}, 1, "plain", 0),
    "bf16": (said(precision="bf16"), 1, "bf16", 0),
    "packs": (PACKS, 1, "packs", 0),
    "LoRA": (LORA, 1, "LoRA", 0),
    "PP2": (STAGES, 2, "PP2", 0),  # whose random weights are others
    "dropout": (DROPOUT, 1, "dropout", 0),
    "fused AdamW": (said(fused_adam=True), 1, "plain", 1e-6),
    "fused AdamW, DP2, distributed optimizer": ({**said(fused_adam=True), **SHARDED}, 2, "plain", 1e-6),
    "fused AdamW, bf16, distributed optimizer": (
        {**said(fused_adam=True, precision="bf16"), **SHARDED},
        1,
        "bf16",
        1e-3,
    ),
    "compiled": (said(torch_compile=True), 1, "plain", 1e-5),
    "compiled, bf16": (said(torch_compile=True, precision="bf16"), 1, "bf16", 2e-3),
    "compiled, DP2, distributed optimizer": ({**said(torch_compile=True), **OVERLAPPED}, 2, "plain", 1e-5),
    "compiled, PP2": ({**said(torch_compile=True), **STAGES}, 2, "PP2", 1e-5),
    "compiled, packs, fused AdamW and loss": ({**PACKS, **said(**BOTH)}, 1, "packs", 1e-5),
    "compiled, LoRA": ({**LORA, **said(torch_compile=True)}, 1, "LoRA", 1e-5),
    "compiled, dropout, full recompute": ({**DROPOUT, **said(torch_compile=True, **RECOMPUTE)}, 1, "dropout", 1e-5),
}
COMPARED = [name for name, (_, _, reference, _) in JOBS.items() if name != reference]
RESUMED = [name for name in COMPARED if "compiled" not in name]  # what is compiled depends on the lengths seen before
COMPILED = [name for name in COMPARED if "compiled" in name]
TAKEN_UP = [("plain", "compiled"), ("compiled", "plain"), ("plain", "fused AdamW"), ("fused AdamW", "plain")]


def content(folder: Path, name: str) -> dict[str, Any]:
    changes, ranks, _, _ = JOBS[name]
    whole: Changes = {"model": SMALL, "checkpoint": {"save_interval": HALF}, **changes}
    if "lora" in changes:
        whole = {**whole, "model": {"num_layers": 2, "load": str(folder / "plain" / SAVED)}}
    return recipe(folder, Given.quickstart(), ranks, whole, steps=STEPS)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, and some of them once more, stopped half-way and gone on with, by themselves or by another."""
    folder = tmp_path_factory.mktemp("speed")
    jobs = {name: compile_job(folder / name, content(folder, name)) for name in JOBS}
    run_jobs(folder, list(jobs.values()))
    again = []
    for name in RESUMED:
        place = folder / f"{name}, resumed"
        shutil.copytree(folder / name, place)
        forget(place / SAVED, HALF)
        again.append((str(place), *jobs[name][1:]))
    for before, after in TAKEN_UP:
        begun = folder / f"half of {before}"
        if not begun.exists():
            shutil.copytree(folder / before / SAVED, begun)
            forget(begun, HALF)
        going_on = content(folder, after)
        going_on["model"] = {"load": str(begun), **{k: v for k, v in going_on["model"].items() if k != "init"}}
        going_on["checkpoint"]["finetune"] = False
        again.append(compile_job(folder / f"{before}, then {after}", going_on))
    run_jobs(folder, again)
    return folder


@pytest.mark.parametrize("name", COMPARED)
def test_losses_and_gradients_are_the_same(name: str, ran: Path) -> None:
    _, _, reference, limit = JOBS[name]
    found, wanted = learnt(ran / name), learnt(ran / reference)
    assert len(found) == len(wanted) == STEPS
    for step, (here, there) in enumerate(zip(found, wanted, strict=True), start=1):
        assert here == pytest.approx(there, rel=limit), f"iteration {step}"


@pytest.mark.parametrize("name", COMPILED)
def test_layers_are_compiled_whole_and_all_of_them_at_once(name: str, ran: Path) -> None:
    """Two layers, each of one piece, or of two around the attention of a pack; for a length, and then for any; with
    and without gradients where activations are recomputed, and with and without that of the embedding beside adapters.
    """
    told = (ran / name / "stderr").read_text()
    line = re.search(r"^torch\.compile: (\d+) graphs in \d+ s(.*)$", told, re.MULTILINE)
    assert line is not None
    assert 1 <= int(line[1]) <= 6
    assert line[2] == ""  # or: cut at so many places
    assert "torch.compile" not in (ran / JOBS[name][2] / "stderr").read_text()


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(name: str, ran: Path) -> None:
    place = ran / f"{name}, resumed"
    assert f"at iteration {HALF} of {STEPS}, in full" in (place / "stderr").read_text()
    assert undated(place) == undated(ran / name)


@pytest.mark.parametrize(("before", "after"), TAKEN_UP)
def test_a_run_goes_on_with_and_without(before: str, after: str, ran: Path) -> None:
    found = learnt(ran / f"{before}, then {after}")
    assert len(found) == STEPS - HALF
    for here, there in zip(found, learnt(ran / "plain")[HALF:], strict=True):
        assert here == pytest.approx(there, rel=1e-5)
