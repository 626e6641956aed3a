"""Presets: their shapes, counted, have exactly as many parameters as the models are published with."""

from pathlib import Path

import pytest

from sftc.compiler.compile import check_recipe
from sftc.compiler.options import managed_options, option_of, option_table, problem
from sftc.compiler.parameters import Parameters, parameters
from sftc.compiler.plan import FromPreset, FromRecipe, Plan
from sftc.compiler.presets import not_offered, preset, preset_names
from sftc.compiler.schemas import leaves, load_schema, recipe_schema

ROOT = Path(__file__).resolve().parents[2]
TABLE = option_table("0.19")

# `hub`: the total of the safetensors files, as the Hugging Face hub gives it for the model's repository.
# `gguf`: `general.parameter_count` of the converted model, where the hub's total counts tied weights twice or buffers.
# `keras`: KerasHub's metadata of the same weights.
# `log`: printed by a program that had loaded the weights.
PUBLISHED = {
    "llama-2-7b": (6_738_415_616, "hub, which counts 2,048 rotary frequencies on top: 6,738,417,664"),
    "llama-2-13b": (13_015_864_320, "hub, which counts 2,560 rotary frequencies on top: 13,015,866,880"),
    "llama-2-70b": (68_976_648_192, "hub, which counts 5,120 rotary frequencies on top: 68,976,653,312"),
    "llama-3-8b": (8_030_261_248, "gguf"),
    "llama-3-70b": (70_553_706_496, "hub, of Llama 3.1 and 3.3, which have the same layers"),
    "llama-3.1-8b": (8_030_261_248, "hub"),
    "llama-3.1-70b": (70_553_706_496, "hub"),
    "llama-3.1-405b": (405_853_388_800, "hub"),
    "llama-3.2-1b": (1_235_814_400, "hub"),
    "llama-3.2-3b": (3_212_749_824, "hub"),
    "llama-3.3-70b": (70_553_706_496, "hub"),
    "qwen2.5-0.5b": (494_032_768, "hub"),
    "qwen2.5-1.5b": (1_543_714_304, "hub"),
    "qwen2.5-1.5b-instruct": (1_543_714_304, "hub"),
    "qwen2.5-3b": (3_085_938_688, "hub"),
    "qwen2.5-7b": (7_615_616_512, "hub"),
    "qwen2.5-7b-instruct": (7_615_616_512, "hub"),
    "qwen2.5-14b": (14_770_033_664, "gguf"),
    "qwen2.5-32b": (32_763_876_352, "hub"),
    "qwen2.5-32b-instruct": (32_763_876_352, "hub"),
    "qwen2.5-72b": (72_706_203_648, "keras"),
    "qwen2.5-72b-instruct": (72_706_203_648, "keras"),
    "qwen3-0.6b": (596_049_920, "keras; the hub's 751,632,384 hold the tied output layer a second time"),
    "qwen3-1.7b": (1_720_574_976, "keras; the hub's 2,031,739,904 hold the tied output layer a second time"),
    "qwen3-4b": (4_022_468_096, "hub"),
    "qwen3-8b": (8_190_735_360, "hub"),
    "qwen3-8b-base": (8_190_735_360, "hub, of Qwen3-8B, which has the same layers"),
    "qwen3-14b": (14_768_307_200, "keras"),
    "qwen3-32b": (32_762_123_264, "hub"),
    "qwen3-30b-a3b": (30_532_122_624, "gguf"),
    "qwen3-235b-a22b": (235_093_634_560, "hub"),
    "mistral-7b-v0.1": (7_241_732_096, "gguf"),
    "mistral-7b-v0.3": (7_248_023_552, "hub"),
    "mixtral-8x7b": (46_702_792_704, "hub"),
    "mixtral-8x22b": (140_620_634_112, "hub"),
    "mixtral-8x22b-instruct": (140_630_071_296, "hub"),
    "deepseek-v2-lite": (15_706_484_224, "hub"),
    "gpt-oss-20b": (20_914_757_184, "hub"),
    "smollm2-135m": (134_515_008, "hub"),
    "smollm2-360m": (361_821_120, "hub"),
    "smollm2-1.7b": (1_711_376_384, "hub"),
}


RECIPE = """\
name: counted
task:
  is_sft: true
model:
  init: random
  preset: {name}
  {more}
tokenizer:
  path: tokenizer
data:
  train_data_path: train.jsonl
train:
  train_iters: 1
  global_batch_size: 8
  seq_length: 1024
  lr: 1e-5
launch:
  nproc_per_node: 8
"""


def plan_of(folder: Path, name: str, more: str = "", args: str = "") -> Plan:
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(name=name, more=more) + args)
    checked = check_recipe(recipe, "recipe.yaml")
    assert checked.plan is not None, checked.diagnostics
    return checked.plan


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_has_as_many_parameters_as_the_model(tmp_path: Path, name: str) -> None:
    published, _source = PUBLISHED[name]
    counted = parameters(plan_of(tmp_path, name))
    assert (counted.total, counted.uncounted) == (published, ())
