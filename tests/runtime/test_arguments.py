"""Megatron's real parser and validator accept every compiled argument file, and it means what the plan says."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "expected"
SAME_NAME = {
    "model": ["num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "vocab_size"],
    "train": ["train_iters", "global_batch_size", "seq_length", "lr", "min_lr", "lr_warmup_iters", "weight_decay"],
    "parallel": ["tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size"],
    "checkpoint": ["save", "save_interval"],
}


def plan_of(name: str) -> Any:
    return json.loads((GOLDEN / name / "plan.json").read_text())["values"]


# Older targets have parsers of their own: tests/acceptance/test_targets.py.
BUILDS = sorted(path.name for path in GOLDEN.iterdir() if plan_of(path.name)["megatron"]["target"]["value"] == "0.19")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What Megatron says of each file, and of one that it must refuse; one process, for importing it takes long."""
    if find_spec("megatron") is None:
        pytest.skip("needs megatron-core[training]")
    planted = tmp_path_factory.mktemp("planted") / "megatron.args"
    planted.write_text((GOLDEN / "quickstart/megatron.args").read_text() + "--min-lr 5\n")
    files = [f"{GOLDEN / name / 'megatron.args'}:{plan_of(name)['launch']['world_size']['value']}" for name in BUILDS]
    script = Path(__file__).with_name("accept_arguments.py")
    done = subprocess.run([sys.executable, script, *files, f"{planted}:1"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {Path(name).parent.name: answer for name, answer in json.loads(done.stdout.splitlines()[-1]).items()}
    found["planted"] = found.pop(planted.parent.name)
    return found


@pytest.mark.parametrize("name", BUILDS)
def test_megatron_accepts_the_argument_file(answers: Any, name: str) -> None:
    assert answers[name]["accepted"], answers[name]["complaint"]


@pytest.mark.parametrize("name", BUILDS)
def test_megatron_understands_what_the_plan_says(answers: Any, name: str) -> None:
    values = plan_of(name)
    args = answers[name]["args"]
    for section, keys in SAME_NAME.items():
        for key in keys:
            assert args[key] == values[section][key]["value"], key
    assert args["data_parallel_size"] == values["parallel"]["data_parallel_size"]["value"]
    assert args["add_bias_linear"] == values["model"]["add_bias_linear"]["value"]
    assert args["calculate_per_token_loss"] == values["train"]["calculate_per_token_loss"]["value"]
    assert args["bf16"] == (values["train"]["precision"]["value"] == "bf16")
    # What `--sft`, `--finetune` and the like would do is decided by sftc, and never slips in.
    assert not args["sft"]
    assert not args["finetune"]


def test_megatron_refuses_a_wrong_one(answers: Any) -> None:
    """The validator really runs: a final learning rate above the peak does not pass it."""
    assert not answers["planted"]["accepted"]
