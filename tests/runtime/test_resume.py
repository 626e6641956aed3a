"""A run that goes on, at any iteration and on other ranks, is the run that was never stopped."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small_jobs import Changes, Given, compile_job, forget, learnt, lines_of, recipe, run_jobs, undated

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
STEPS = 6
HALF = 3
DROPOUT: Changes = {"model": {"num_layers": 2, "init": "random", "hidden_dropout": 0.1, "attention_dropout": 0.1}}
PLAIN: Changes = {"model": {"num_layers": 2, "init": "random"}}
SHARDED = {"use_distributed_optimizer": True}
SAVING = {"save_interval": 1}
TP2 = {"tensor_model_parallel_size": 2}
RESHARDABLE: Changes = {"megatron": {"args": {"dist_ckpt_optim_fully_reshardable": True}}}
RUN = Path("runs/small")

# Runs that are never stopped, with a checkpoint of each iteration: what they add to the recipe, and their ranks.
UNDISTURBED: dict[str, tuple[Changes, int]] = {
    "plain": ({**DROPOUT, "checkpoint": SAVING}, 1),
    "distributed optimizer": ({**DROPOUT, "checkpoint": SAVING, "parallel": SHARDED}, 1),
    "asynchronous": ({**DROPOUT, "checkpoint": {**SAVING, "async_save": True}}, 1),
    "DP1": ({**PLAIN, "checkpoint": SAVING}, 1),
    "DP2": ({**PLAIN, "checkpoint": SAVING}, 2),
    "DP1, distributed optimizer": ({**PLAIN, "checkpoint": SAVING, "parallel": SHARDED}, 1),
    "DP2, distributed optimizer": ({**PLAIN, "checkpoint": SAVING, "parallel": SHARDED}, 2),
    "DP1, reshardable": ({**PLAIN, "checkpoint": SAVING, "parallel": SHARDED, **RESHARDABLE}, 1),
    "TP2": ({**PLAIN, "parallel": TP2}, 2),
    "TP2, distributed optimizer": ({**PLAIN, "parallel": {**TP2, **SHARDED}}, 2),
    "keep 2": ({**PLAIN, "checkpoint": {**SAVING, "keep": 2}}, 1),
    "keep 2, asynchronous": ({**PLAIN, "checkpoint": {**SAVING, "keep": 2, "async_save": True}}, 1),
}
RESUMED = [(name, at) for name in ("plain", "distributed optimizer", "asynchronous") for at in range(1, STEPS)]
OTHER_RANKS = [
    (f"{before}{kind}", f"{after}{kind}")
    for kind in ("", ", distributed optimizer")
    for before, after in (("DP1", "DP2"), ("DP2", "DP1"))
]
OTHER_RANKS += [("DP1", "TP2"), ("DP1, reshardable", "TP2, distributed optimizer")]
REFUSED = ("DP1, distributed optimizer", "TP2, distributed optimizer")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, given = tmp_path_factory.mktemp("resume"), Given.quickstart()
    jobs = {
        name: compile_job(folder / name, recipe(folder, given, ranks, changes, steps=STEPS))
        for name, (changes, ranks) in UNDISTURBED.items()
    }
    run_jobs(folder, list(jobs.values()))
    again = []
    for name, at in RESUMED:
        place = folder / f"{name} from {at}"
        shutil.copytree(folder / name, place)
        forget(place / RUN / "checkpoints", at)
        again.append((str(place), *jobs[name][1:]))
    for before, after in OTHER_RANKS:
        again.append(compile_job(folder / f"{before} to {after}", continued(folder, given, before, after)))
    run_jobs(folder, again)
    run_jobs(folder, [compile_job(folder / "refused", continued(folder, given, *REFUSED))], failing=True)
    return folder


def continued(folder: Path, given: Given, before: str, after: str) -> dict[str, Any]:
    """A recipe that goes on from the middle of run `before`, in the layout of `after`."""
    changes, ranks = UNDISTURBED[after]
    content = recipe(folder, given, ranks, changes, steps=STEPS)
    content["checkpoint"] = {"finetune": False}
    del content["model"]["init"]
    content["model"]["load"] = str(stopped(folder / before / RUN / "checkpoints", HALF))
    return content


def stopped(checkpoints: Path, at: int) -> Path:
    copy = checkpoints.with_name(f"checkpoints up to {at}")
    if not copy.exists():
        shutil.copytree(checkpoints, copy)
        forget(copy, at)
    return copy


@pytest.mark.parametrize(("name", "at"), RESUMED)
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(name: str, at: int, ran: Path) -> None:
    place = ran / f"{name} from {at}"
    assert f"at iteration {at} of {STEPS}, in full" in (place / "stderr").read_text()
    assert [line["iteration"] for line in lines_of(place)] == list(range(1, STEPS + 1))
    assert undated(place) == undated(ran / name)


@pytest.mark.parametrize(("before", "after"), OTHER_RANKS)
def test_a_run_goes_on_with_other_ranks(before: str, after: str, ran: Path) -> None:
    place = ran / f"{before} to {after}"
    assert f"at iteration {HALF}, in full" in (place / "stderr").read_text()
    assert [line["iteration"] for line in lines_of(place)] == list(range(HALF + 1, STEPS + 1))
    for found, wanted in zip(learnt(place), learnt(ran / before)[HALF:], strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)


def test_split_optimizer_states_that_do_not_fit_are_told(ran: Path) -> None:
    told = (ran / "refused/stderr").read_text()
    assert "holds split optimizer states that fit its own TP and PP only\nhelp: say `checkpoint.no_load_optim" in told
    assert "Traceback" not in told


def test_asynchronous_saving_changes_nothing_in_the_run(ran: Path) -> None:
    assert undated(ran / "asynchronous") == undated(ran / "plain")
    log = (ran / "asynchronous/stdout").read_text()
    assert log.count("scheduled an async checkpoint save") == STEPS


@pytest.mark.parametrize("name", ["keep 2", "keep 2, asynchronous"])
def test_the_newest_checkpoints_stay(name: str, ran: Path) -> None:
    save = ran / name / RUN / "checkpoints"
    assert sorted(path.name for path in save.glob("iter_*")) == ["iter_0000005", "iter_0000006"]
    assert all((path / "metadata.json").is_file() for path in save.glob("iter_*"))
    assert json.loads((save / "sftc.json").read_text())["name"] == "small"
    assert (save / "latest_checkpointed_iteration.txt").read_text() == str(STEPS)
