"""Megatron's real parser and validator accept every compiled argument file, and it means what the plan says."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from sftc.compiler.cli import cli
from sftc.compiler.pipeline import stage_layers
from sftc.compiler.plan import Default, Resolved

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


FIRST, LAST = "decoder_first_pipeline_num_layers", "decoder_last_pipeline_num_layers"
SPLIT = {f"account_for_{what}_in_pipeline_split": True for what in ("embedding", "loss")}
LAYOUT = "pipeline_model_parallel_layout"
# Layers, PP, virtual stages, and what `megatron.args` says.
DEALT: list[tuple[int, int, int, dict[str, Any]]] = [
    (8, 1, 1, {}),
    (8, 4, 1, {}),
    (16, 4, 2, {}),
    (8, 2, 1, {FIRST: 6}),
    (11, 4, 1, {LAST: 2}),
    (10, 4, 1, {FIRST: 1, LAST: 3}),
    (16, 4, 2, {FIRST: 2, LAST: 2}),
    (12, 2, 2, {LAST: 4}),
    (8, 2, 1, {FIRST: 3, LAST: 5}),
    (6, 4, 1, SPLIT),
    (14, 4, 2, SPLIT),
    (7, 4, 2, dict(list(SPLIT.items())[:1])),
    (8, 2, 1, {LAYOUT: "Et*3|t*5L"}),
    (8, 4, 1, {LAYOUT: "Et*4|t*4||L"}),
    (13, 4, 2, {LAYOUT: "Et,(tt|)*5|tt|L"}),
    (12, 2, 3, {LAYOUT: "Ett|(tt|ttt|)*2L"}),
]
REFUSED: list[tuple[int, int, int, dict[str, Any]]] = [
    (9, 2, 1, {}),
    (8, 2, 2, {FIRST: 3}),
    (8, 4, 1, {FIRST: 3}),
    (8, 2, 1, {FIRST: 2, LAST: 2}),
    (8, 2, 1, {FIRST: 9}),
    (8, 2, 1, {FIRST: 6, **SPLIT}),
    (8, 2, 1, {LAYOUT: "Et*3|t*4L"}),
    (8, 2, 1, {LAYOUT: "Et*3|t*5|L"}),
    (8, 2, 1, {LAYOUT: "Ex*3|t*8L"}),
    (8, 2, 1, {LAYOUT: "Et*99999999999|L"}),
]


def dealt(check, layers: int, pp: int, vpp: int, args: dict[str, Any]) -> list[list[int]] | None:
    """By the compiler, past its rules."""
    values = {
        "model.num_layers": layers,
        "parallel.pipeline_model_parallel_size": pp,
        "parallel.num_virtual_stages_per_pipeline_rank": vpp if vpp > 1 else None,
        "megatron.args": args,
    }
    plan = check("preset: llama-2-7b").plan
    stated = {key: Resolved(value=value, origin=Default()) for key, value in values.items()}
    found = stage_layers(replace(plan, values={**plan.values, **stated}))
    return None if found is None else [[layer for chunk in stage for layer in chunk] for stage in found]


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "pp", "vpp", "args"), DEALT)
def test_the_layers_of_each_stage_are_those_that_megatron_builds(
    check, monkeypatch: pytest.MonkeyPatch, layers: int, pp: int, vpp: int, args: dict[str, Any]
) -> None:
    pytest.importorskip("megatron.core")
    from megatron.core import parallel_state
    from megatron.core.transformer.pipeline_parallel_layer_layout import PipelineParallelLayerLayout
    from megatron.core.transformer.transformer_block import get_num_layers_to_build
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    built: list[list[int]] = [[] for _ in range(pp)]
    monkeypatch.setattr(
        parallel_state, "get_virtual_pipeline_model_parallel_world_size", lambda: vpp if vpp > 1 else None
    )
    config: Any = SimpleNamespace(
        num_layers=layers,
        pipeline_model_parallel_size=pp,
        virtual_pipeline_model_parallel_size=vpp if vpp > 1 else None,
        pipeline_model_parallel_layout=None,
        num_layers_in_first_pipeline_stage=args.get(FIRST),
        num_layers_in_last_pipeline_stage=args.get(LAST),
        **{name: args.get(name, False) for name in SPLIT},
    )
    layout = PipelineParallelLayerLayout(args[LAYOUT], pp) if LAYOUT in args else None
    for chunk in range(vpp):
        for stage in range(pp):
            where = {"vp_stage": chunk if vpp > 1 else None, "pp_rank": stage}
            if layout is not None:
                built[stage] += layout.get_layer_id_list(**where)
                continue
            start = get_transformer_layer_offset(config, **where)
            built[stage] += range(start, start + get_num_layers_to_build(config, **where))
    assert sorted(layer for stage in built for layer in stage) == list(range(layers))
    assert dealt(check, layers, pp, vpp, args) == built


@pytest.mark.parametrize(("layers", "pp", "vpp", "args"), REFUSED)
def test_a_layout_that_megatron_refuses_is_not_followed(
    check, layers: int, pp: int, vpp: int, args: dict[str, Any]
) -> None:
    assert dealt(check, layers, pp, vpp, args) is None
