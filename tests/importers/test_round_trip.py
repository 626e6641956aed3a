"""The argument file of a build dir is a list of options like any other: imported, it compiles to the same options."""

import json
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.compile import check_text
from sftc.compiler.importers.megatron import import_megatron
from sftc.compiler.importers.request import Request

EXPECTED = Path(__file__).parents[1] / "golden/expected"
# What Megatron's options do not say.
GIVEN = (
    "model.init",
    "model.load",
    "tokenizer.path",
    "data.train_data_path",
    "data.valid_data_path",
    "data.packing",
    "train.epochs",
    "launch.nnodes",
    "launch.nproc_per_node",
    "launch.device",
)


def value(plan: dict[str, Any], key: str) -> Any:
    node = plan["values"]
    for part in key.split("."):
        node = node[part]
    return node["value"]


@pytest.mark.parametrize("name", ["quickstart", "gsm8k-smollm2-cpu", "packed", "pretrain-cpu", "slurm-3d"])
def test_the_options_of_a_build_dir_survive(name: str) -> None:
    plan = json.loads((EXPECTED / name / "plan.json").read_text())
    given = {key: found for key in GIVEN if (found := value(plan, key)) is not None}
    request = Request(task=plan["task"]["kind"], given={"name": name, **given})
    done = import_megatron(EXPECTED / name / "megatron.args", "megatron.args", request)
    assert done.valid
    checked = check_text(done.text, "recipe.yaml").plan
    assert checked
    there = {(item["option"], *item["values"]) for item in plan["arguments"]}
    assert {(item.option, *item.values) for item in checked.arguments} == there
