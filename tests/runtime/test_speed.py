"""What is said to make a run faster leaves its numbers alone, and can be taken up or left at any checkpoint."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_jobs import Changes, Given, compile_job, forget, learnt, recipe, run_jobs, undated

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
STEPS, HALF = 12, 6
SMALL: Changes = {"model": {"num_layers": 2, "init": "random"}, "checkpoint": {"save_interval": HALF}}
ADAM: Changes = {"train": {"fused_adam": True}}
BF16: Changes = {"train": {"precision": "bf16"}}
FUSED_BF16: Changes = {"train": {"precision": "bf16", "fused_adam": True}}
SHARDED: Changes = {"parallel": {"use_distributed_optimizer": True}}

# Each with what it adds to the recipe, its ranks, and the run that it must agree with, up to a relative difference.
type Job = tuple[Changes, int, str, float]
JOBS: dict[str, Job] = {
    "plain": ({}, 1, "plain", 0),
    "bf16": (BF16, 1, "bf16", 0),
    "fused AdamW": (ADAM, 1, "plain", 1e-6),
    "fused AdamW, DP2, distributed optimizer": ({**ADAM, **SHARDED}, 2, "plain", 1e-6),
    "fused AdamW, bf16, distributed optimizer": ({**FUSED_BF16, **SHARDED}, 1, "bf16", 1e-3),
}
COMPARED = [name for name, (_, _, reference, _) in JOBS.items() if name != reference]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, and beside it the same one, which was stopped half-way and went on."""
    folder, given = tmp_path_factory.mktemp("speed"), Given.quickstart()
    jobs = {
        name: compile_job(folder / name, recipe(folder, given, ranks, {**SMALL, **changes}, steps=STEPS))
        for name, (changes, ranks, _, _) in JOBS.items()
    }
    run_jobs(folder, list(jobs.values()))
    again = []
    for name in COMPARED:
        place = folder / f"{name}, resumed"
        shutil.copytree(folder / name, place)
        forget(place / "runs/small/checkpoints", HALF)
        again.append((str(place), *jobs[name][1:]))
    run_jobs(folder, again)
    return folder


@pytest.mark.parametrize("name", COMPARED)
def test_losses_and_gradients_are_the_same(name: str, ran: Path) -> None:
    _, _, reference, limit = JOBS[name]
    found, wanted = learnt(ran / name), learnt(ran / reference)
    assert len(found) == len(wanted) == STEPS
    for step, (here, there) in enumerate(zip(found, wanted, strict=True), start=1):
        assert here == pytest.approx(there, rel=limit), f"iteration {step}"


@pytest.mark.parametrize("name", COMPARED)
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(name: str, ran: Path) -> None:
    place = ran / f"{name}, resumed"
    assert f"at iteration {HALF} of {STEPS}, in full" in (place / "stderr").read_text()
    assert undated(place) == undated(ran / name)
