"""Presets: their shapes, counted, have exactly as many parameters as the models are published with."""

import json
from collections.abc import Callable

import pytest
from jsonschema import Draft202012Validator

from sftc.compiler.compile import Checked, artifacts
from sftc.compiler.options import managed_options, option_table, problem
from sftc.compiler.parameters import parameters
from sftc.compiler.patterns import layer_pattern
from sftc.compiler.plan import FromPreset, FromRecipe, Plan
from sftc.compiler.presets import not_offered, preset, preset_names
from sftc.compiler.schemas import leaves, load_schema, recipe_schema
from sftc.compiler.summary import size_line, spell_count

type Check = Callable[..., Checked]
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
    "qwen2.5-32b": (32_763_876_352, "keras"),
    "qwen2.5-32b-instruct": (32_763_876_352, "keras"),
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
    "deepseek-v2-lite": (15_706_484_224, "log"),
    "gpt-oss-20b": (20_914_757_184, "hub"),
    "smollm2-135m": (134_515_008, "hub"),
    "smollm2-360m": (361_821_120, "hub"),
    "smollm2-1.7b": (1_711_376_384, "hub"),
}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_has_as_many_parameters_as_the_model(check: Check, name: str) -> None:
    published, _source = PUBLISHED[name]
    counted = parameters(plan_of(check(f"preset: {name}")))
    assert (counted.total, counted.uncounted) == (published, ())


# All weights but those of the experts that a token does not visit.
@pytest.mark.parametrize(
    ("name", "active"),
    [("qwen3-30b-a3b", 3_353_032_704), ("mixtral-8x7b", 12_879_925_248), ("llama-2-7b", 6_738_415_616)],
)
def test_what_a_token_passes_through(check: Check, name: str, active: int) -> None:
    assert parameters(plan_of(check(f"preset: {name}"))).active == active


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("add_qkv_bias: true", (32 + 2 * 32) * 128 * 32),
        ("add_bias_linear: true", 32 * ((32 + 2 * 32) * 128 + 4096 + 2 * 11008 + 4096)),
        ("normalization: LayerNorm", 4096 * (2 * 32 + 1)),
        ("qk_layernorm: true", 2 * 128 * 32),
        ("position_embedding_type: learned_absolute", 4096 * 4096),
        ("untie_embeddings_and_output_weights: false", -32000 * 4096),
        ("swiglu: false", -32 * 4096 * 11008),
        ("num_query_groups: 8", -2 * 24 * 128 * 4096 * 32),
    ],
)
def test_each_key_changes_the_count_by_its_own_weights(check: Check, line: str, more: int) -> None:
    """Llama 2 7B with one line of the recipe against its preset."""
    assert parameters(plan_of(check("preset: llama-2-7b", line))).total == 6_738_415_616 + more


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ("q_lora_rank: 512", 27 * (2048 * 512 + 512 + 512 * 16 * 192 - 2048 * 16 * 192)),
        ("moe_shared_expert_gate: true", 26 * 2048),
        ("moe-layer-freq: '[1]*27'", 64 * 3 * 2048 * 1408 + 64 * 2048 + 3 * 2048 * 2816 - 3 * 2048 * 10944),
    ],
)
def test_each_option_changes_the_count_by_its_own_weights(check: Check, options: str, more: int) -> None:
    checked = check("preset: deepseek-v2-lite", more=f"megatron:\n  args:\n    {options}")
    assert parameters(plan_of(checked)).total == 15_706_484_224 + more


def test_weights_that_are_not_counted_are_named(check: Check) -> None:
    checked = check("preset: llama-2-7b", more="megatron:\n  args:\n    linear_attention_freq: 4")
    plan = plan_of(checked)
    assert parameters(plan).uncounted == ("linear_attention_freq",)
    assert size_line(plan) == "6.74 B parameters, without those of `linear_attention_freq`"


def test_counts_are_spelled_short() -> None:
    counts = (640, 3_244_352, 134_515_008, 8_030_261_248, 405_853_388_800, 1_026_408_235_864)
    assert [spell_count(count) for count in counts] == ["640", "3.24 M", "134.5 M", "8.03 B", "405.9 B", "1.03 T"]


def test_the_menu_of_the_schema_is_the_table() -> None:
    key = recipe_schema()["properties"]["model"]["properties"]["preset"]
    assert key["enum"] == [*preset_names(), None]
    assert set(PUBLISHED) == set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_a_recipe_could_say(name: str) -> None:
    """Its values suit the schema, and its options the table: no key of its own, nothing that sftc answers for."""
    shape, schemas = preset(name), dict(leaves())
    for key, value in shape.values.items():
        assert Draft202012Validator(schemas[key]).is_valid(value), key
    owned = {TABLE[schema["x-megatron"]].dest for schema in schemas.values() if "x-megatron" in schema}
    for option, value in shape.args.items():
        text = "--" + option.replace("_", "-")
        assert problem(TABLE[text], text, () if value is True else (value,)) is None
        assert text not in managed_options()
        assert TABLE[text].dest not in owned


def test_every_family_has_a_preset_and_no_preset_is_also_refused() -> None:
    table = load_schema("models/presets.json")
    assert {row["family"] for row in table["presets"].values()} == set(table["families"])
    assert not set(not_offered()) & set(preset_names())
    repositories = [one for row in table["presets"].values() for one in row["hub"]]
    assert len(repositories) == len(set(repositories))


def test_the_recipe_wins_and_every_origin_is_told(check: Check) -> None:
    plan = plan_of(
        check("preset: gpt-oss-20b", "num_layers: 2", more="megatron:\n  args:\n    mscale: 2.0\n    manual_gc: true")
    )
    assert (plan["model.num_layers"], plan.values["model.num_layers"].origin) == (2, FromRecipe())
    assert (plan["model.hidden_size"], plan.values["model.hidden_size"].origin) == (
        2880,
        FromPreset(preset="gpt-oss-20b"),
    )
    args, origin = plan["megatron.args"], plan.values["megatron.args"].origin
    assert (args["mscale"], args["softmax_type"]) == (2.0, "learnable")
    assert origin == FromPreset(preset="gpt-oss-20b", recipe=("mscale", "manual_gc"))
    assert origin.to_json() == {"from": "preset", "preset": "gpt-oss-20b", "recipe": ["mscale", "manual_gc"]}


def test_another_spelling_of_an_option_of_the_preset_replaces_it(check: Check) -> None:
    plan = plan_of(check("preset: deepseek-v2-lite", more="megatron:\n  args:\n    kv-lora-rank: 256"))
    assert plan["megatron.args"]["kv-lora-rank"] == 256
    assert "kv_lora_rank" not in plan["megatron.args"]
    assert [argument.values for argument in plan.arguments if argument.option == "--kv-lora-rank"] == [("256",)]


def test_latent_attention_has_no_query_groups(check: Check) -> None:
    """Megatron refuses the two beside each other."""
    for name, grouped in {"deepseek-v2-lite": False, "llama-2-7b": True}.items():
        options = {argument.option for argument in plan_of(check(f"preset: {name}")).arguments}
        assert ("--group-query-attention" in options) == grouped


def test_the_manifest_digests_the_preset(check: Check) -> None:
    def dependencies(*model: str) -> dict[str, str]:
        manifest = next(one for one in artifacts(check(*model)) if one.path == "manifest.json")
        listed = json.loads(manifest.content)["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {one["name"]: one["digest"]["sha256"] for one in listed}

    small, large = dependencies("preset: llama-3.2-1b"), dependencies("preset: llama-3.2-3b")
    assert set(small) - set(large) == {"preset/llama-3.2-1b"}
    assert small["preset/llama-3.2-1b"] != large["preset/llama-3.2-3b"]


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        (3, 3),
        ("3", 3),
        ("([0]+[1]*3)", [0, 1, 1, 1]),
        ("([1]*2+[0])*2", [1, 1, 0, 1, 1, 0]),
        ("2*[0,1]", [0, 1, 0, 1]),
    ],
)
def test_patterns_mean_what_megatron_reads(text: int | str, layers: int | list[int]) -> None:
    assert layer_pattern(text) == layers


@pytest.mark.parametrize(
    "text",
    [0, -1, 1.5, "", "[2]", "[[1]]", "[1]+1", "[1]*[1]", "[1]*99999999999", "print(1)", "__import__('os')", "[True]"],
)
def test_what_is_no_pattern_is_refused(text: int | str) -> None:
    with pytest.raises(ValueError, match="is no pattern of layers"):
        layer_pattern(text)


def plan_of(checked: Checked) -> Plan:
    assert checked.plan is not None, checked.diagnostics
    return checked.plan
