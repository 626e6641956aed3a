"""Megatron's real parser and validator accept every compiled argument file, and it means what the plan says."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from sftc.compiler.cli import cli

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "expected"
PAGE = Path(__file__).resolve().parents[2] / "docs/parallel.md"
SNIPPETS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
BASE = """
name: snippet
task: {is_sft: true}
model: {num_layers: 2, hidden_size: 64, ffn_hidden_size: 128, num_attention_heads: 4, vocab_size: 512,
        max_position_embeddings: 128, init: random}
tokenizer: {path: tokenizer}
data: {train_data_path: train.jsonl}
train: {train_iters: 400, global_batch_size: 4, seq_length: 128, lr: 0.001}
launch: {nproc_per_node: 2}
"""
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
    files = [f"{build / 'megatron.args'}:2" for build in _snippets(tmp_path_factory.mktemp("snippets"))]
    files += [f"{GOLDEN / name / 'megatron.args'}:{plan_of(name)['launch']['world_size']['value']}" for name in BUILDS]
    script = Path(__file__).with_name("accept_arguments.py")
    done = subprocess.run([sys.executable, script, *files, f"{planted}:1"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {Path(name).parent.name: answer for name, answer in json.loads(done.stdout.splitlines()[-1]).items()}
    found["planted"] = found.pop(planted.parent.name)
    return found


def _snippets(folder: Path) -> Iterator[Path]:
    """Each example of docs/parallel.md in a recipe of its own, compiled."""
    for number, snippet in enumerate(SNIPPETS):
        recipe = YAML().load(BASE)
        for section, values in YAML().load(snippet).items():
            recipe.setdefault(section, {}).update(values)
        with (folder / f"{number}.yaml").open("w") as file:
            YAML().dump(recipe, file)
        build = folder / f"snippet {number}"
        done = CliRunner().invoke(cli, ["compile", str(folder / f"{number}.yaml"), "-o", str(build)])
        assert done.exit_code == 0, done.output
        yield build


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_megatron_accepts_what_the_page_of_layouts_shows(answers: Any, number: int) -> None:
    assert answers[f"snippet {number}"]["accepted"], (SNIPPETS[number], answers[f"snippet {number}"]["complaint"])


@pytest.mark.parametrize("name", BUILDS)
def test_megatron_accepts_the_argument_file(answers: Any, name: str) -> None:
    assert answers[name]["accepted"], answers[name]["complaint"]


@pytest.mark.parametrize("name", BUILDS)
def test_megatron_understands_what_the_plan_says(answers: Any, name: str) -> None:
    values = plan_of(name)
    args = answers[name]["args"]
    for section, keys in SAME_NAME.items():
        for key in keys:
            assert args.get(key) == values[section][key]["value"], key
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
