"""Training with adapters, from recipes alone: what is frozen, what is saved, and what a resume does.

That every layout computes the same is in test_layouts.py.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_jobs import Changes, Given, compile_job, forget, learnt, lines_of, recipe, run_jobs, undated

from sftc.runtime.megatron.saved import SavedModel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
STEPS, HALF = 6, 3
RUN = Path("runs/small")
LORA = {"rank": 4, "alpha": 64, "dropout": 0.1}
SAVING = {"checkpoint": {"save_interval": 1}}
TWO = {"num_layers": 2}
HALVED = {"parallel": {"pipeline_model_parallel_size": 2}}
RECOMPUTE = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
FIRST, LAST = ({"rank": 4, "alpha": 64, "targets": [f"decoder.layers.{layer}.*"]} for layer in (0, 1))
# A forward step that keeps the digests of all frozen tensors, and of no others.
WATCH = """
import hashlib, json
from functools import partial


def forward_step(data_iterator, model, get_batch, loss_func):
    frozen = {}
    for name, parameter in model.named_parameters():
        if ".lora." not in name:
            frozen[name.removeprefix("module.")] = hashlib.sha256(parameter.detach().numpy().tobytes()).hexdigest()
    with open("frozen.jsonl", "a") as file:
        print(json.dumps(frozen, sort_keys=True), file=file)
    batch = get_batch(data_iterator)
    output = model(batch["tokens"], batch["position_ids"], batch["attention_mask"], labels=batch["labels"])
    return output, partial(loss_func, batch)
"""

JOBS: dict[str, tuple[Changes, int]] = {
    "all weights": ({}, 1),
    "without dropout": ({"lora": {"rank": 4, "alpha": 64}}, 1),
    "watched": ({"lora": LORA, "hooks": {"forward_step": "watch.py:forward_step"}}, 1),
    "undisturbed": ({"lora": LORA, **SAVING}, 1),
    "sharded": ({"lora": LORA, **SAVING, "parallel": {"use_distributed_optimizer": True}}, 1),
    "first layer": ({"lora": FIRST}, 1),
    "first layer, PP2": ({"lora": FIRST, **HALVED}, 2),
    "first layer, recomputed": ({"lora": FIRST, "train": RECOMPUTE}, 1),
    "last layer": ({"lora": LAST}, 1),
    "last layer, PP2": ({"lora": LAST, **HALVED}, 2),
}
AGREEING = [(f"{name} layer", f"{name} layer, PP2") for name in ("first", "last")]
AGREEING += [("first layer", "first layer, recomputed")]
RESUMED = ("undisturbed", "sharded")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, given = tmp_path_factory.mktemp("lora"), Given.quickstart()
    base: Changes = {"model": {**TWO, "init": "random"}, "train": {"train_iters": 1}}
    other: Changes = {"model": {**TWO, "init": "random"}, "train": {"train_iters": 1, "seed": 5}}
    jobs = [
        compile_job(folder / name, recipe(folder, given, 1, one)) for name, one in (("base", base), ("other", other))
    ]
    for name, (changes, ranks) in JOBS.items():
        content = recipe(folder, given, ranks, changes, steps=STEPS)
        content["model"] |= {**TWO, "load": str(folder / "weights")}
        (folder / name).mkdir()
        (folder / name / "watch.py").write_text(WATCH)
        jobs.append(compile_job(folder / name, content))
    run_jobs(folder, jobs[:2])
    shutil.copytree(folder / "base" / RUN / "checkpoints", folder / "weights")
    run_jobs(folder, jobs[2:])
    again = []
    for name in RESUMED:
        shutil.copytree(folder / name, folder / f"{name} again")
        forget(folder / f"{name} again" / RUN / "checkpoints", HALF)
        again.append((str(folder / f"{name} again"), "build", 1))
    run_jobs(folder, again)
    shutil.copytree(folder / "undisturbed", folder / "beside others")
    forget(folder / "beside others" / RUN / "checkpoints", HALF)
    shutil.rmtree(folder / "weights")
    shutil.copytree(folder / "other" / RUN / "checkpoints", folder / "weights")
    run_jobs(folder, [(str(folder / "beside others"), "build", 1)], failing=True)
    return folder


def test_the_first_loss_is_that_of_the_base_to_the_bit(ran: Path) -> None:
    assert learnt(ran / "without dropout")[0][0] == learnt(ran / "all weights")[0][0]


def test_the_adapters_learn(ran: Path) -> None:
    losses = [loss for loss, _ in learnt(ran / "without dropout")]
    assert min(losses[-2:]) < losses[0]
    assert len(set(losses)) == STEPS


def test_frozen_weights_are_the_bases_to_the_last_byte(ran: Path) -> None:
    seen = (ran / "watched/frozen.jsonl").read_text().splitlines()
    assert len(seen) >= STEPS
    assert len(set(seen)) == 1
    assert "linear_qkv.weight" in seen[0]


def test_checkpoints_hold_adapters_alone_and_the_digest_of_the_others(ran: Path) -> None:
    names = SavedModel(ran / "undisturbed" / RUN / f"checkpoints/iter_{STEPS:07d}").names
    linears = ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
    adapters = {f"decoder.layers.{n}.{linear}.lora.{matrix}" for n in range(2) for linear in linears for matrix in "ab"}
    assert {name for name in names if not name.startswith("rng_state")} == adapters | {"lora_base"}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(name: str, ran: Path) -> None:
    place = ran / f"{name} again"
    assert f"at iteration {HALF} of {STEPS}, in full" in (place / "stderr").read_text()
    assert [line["iteration"] for line in lines_of(place)] == list(range(1, STEPS + 1))
    assert undated(place) == undated(ran / name)


def test_adapters_beside_another_base_are_refused_with_both_digests(ran: Path) -> None:
    told = (ran / "beside others/stderr").read_text()
    assert "the adapters of this checkpoint were trained beside weights of digest " in told
    assert "help: put the weights back that the run began with" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("one", "other"), AGREEING)
def test_stages_and_recomputed_layers_without_adapters_agree(one: str, other: str, ran: Path) -> None:
    for found, wanted in zip(learnt(ran / other), learnt(ran / one), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
