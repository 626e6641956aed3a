"""Checkpoints that do not fit, are not whole, or hold no numbers: one sentence each, and nothing is trained."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_jobs import Changes, Given, compile_job, recipe, run_jobs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
RANDOM: Changes = {"model": {"num_layers": 2, "init": "random"}}
EVALUATED: Changes = {"data": {"valid_fraction": 0.1}, "eval": {"eval_interval": 1, "eval_iters": 1}}
# An evaluation comes before the checkpoint of its iteration.
SPOILS = """\
import torch
from functools import partial


def forward_step(data_iterator, model, get_batch, loss_func):
    batch = get_batch(data_iterator)
    output = model(batch["tokens"], batch["position_ids"], None, labels=batch["labels"])
    if not model.training:
        with torch.no_grad():
            dict(model.named_parameters())["module.decoder.final_layernorm.weight"][7] = float("nan")
    return output, partial(loss_func, batch)
"""
# The checkpoint that is loaded, what the recipe says of the model, and what is told.
UNFIT = "does not fit this model, or is not whole: "
JOBS = {
    "other shape": ("whole", {"hidden_size": 32}, UNFIT),
    "other depth": ("whole", {"num_layers": 4}, UNFIT),
    "missing shard": ("torn", {}, UNFIT),
    "no numbers": ("spoilt", {}, "holds 1 values of `decoder.final_layernorm.weight` that are no finite numbers"),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, given = tmp_path_factory.mktemp("bad"), Given.quickstart()
    whole = recipe(folder, given, 1, RANDOM, steps=1)
    hooks: Changes = {"hooks": {"forward_step": "./spoils.py:forward_step"}}
    spoilt = recipe(folder, given, 1, {**RANDOM, **EVALUATED, **hooks}, steps=1)
    for name in ("whole", "spoilt"):
        (folder / name).mkdir()
    (folder / "spoilt/spoils.py").write_text(SPOILS)
    run_jobs(folder, [compile_job(folder / "whole", whole), compile_job(folder / "spoilt", spoilt)])
    shutil.copytree(folder / "whole", folder / "torn")
    (shard,) = (folder / "torn/runs/small/checkpoints/iter_0000001").glob("__0_0.distcp")
    shard.unlink()
    jobs = []
    for name, (given_name, model, _) in JOBS.items():
        load = str(folder / given_name / "runs/small/checkpoints")
        changes: Changes = {"model": {"num_layers": 2, "load": load, **model}}
        jobs.append(compile_job(folder / name, recipe(folder, given, 1, changes, steps=1)))
    run_jobs(folder, jobs, failing=True)
    return folder


@pytest.mark.parametrize("name", JOBS)
def test_a_bad_checkpoint_is_told_in_one_sentence(name: str, ran: Path) -> None:
    told = (ran / name / "stderr").read_text()
    (error,) = [line for line in told.splitlines() if line.startswith("error: ")]
    given, _, message = JOBS[name]
    assert error.startswith(f"error: the checkpoint in `{ran / given / 'runs/small/checkpoints'}`")
    assert message in error
    assert "Traceback" not in told
    assert (ran / name / "status").read_text() == "1"
    assert not (ran / name / "runs/small/checkpoints/latest_checkpointed_iteration.txt").exists()
