"""What is found out about a Hugging Face directory before any rank starts."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_models import MODELS, RAW, RECIPE, save  # noqa: E402

from sftc.runtime.errors import UserError  # noqa: E402
from sftc.runtime.hf.check import notices, open_model  # noqa: E402

DEFAULTS: dict[str, Any] = {
    "model.num_query_groups": 4,
    "model.kv_channels": 8,
    "model.make_vocab_size_divisible_by": 128,
    "model.position_embedding_type": "rope",
    "model.rotary_base": 10000,
    "model.rotary_percent": 1.0,
    "model.use_rope_scaling": False,
    "model.rope_scaling_factor": 8.0,
    "model.normalization": "RMSNorm",
    "model.norm_epsilon": 1e-5,
    "model.swiglu": True,
    "model.add_bias_linear": False,
    "model.add_qkv_bias": False,
    "model.qk_layernorm": False,
    "model.untie_embeddings_and_output_weights": True,
    "model.num_experts": None,
    "model.moe_router_topk": None,
    "model.moe_ffn_hidden_size": None,
    "train.seq_length": 32,
    "train.precision": "bf16",
    "parallel.tensor_model_parallel_size": 1,
}


def plan(name: str, **changes: Any) -> Any:
    """The values of the recipe of model `name`, by key."""
    stated = {**RECIPE, **{key: value for key, value in MODELS[name][2].items() if value is not None}, **changes}
    values = {**DEFAULTS, **{f"model.{key}": value for key, value in stated.items()}}
    return {**values, "megatron.args": RAW.get(name, {})}.__getitem__


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save("llama3", tmp_path / "llama")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


def refusal(folder: Path, value: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_model(folder, value)
    return str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_every_family_agrees_with_its_recipe(name: str, tmp_path: Path) -> None:
    model = open_model(
        save(name, tmp_path, shard="20KB"), plan(name, **({"num_query_groups": 4} if name == "llama2" else {}))
    )
    assert len(model.tensors) > 20


def test_every_difference_is_a_line_for_the_recipe(llama: Path) -> None:
    value = plan(
        "llama3", num_layers=2, rotary_base=10000, untie_embeddings_and_output_weights=False, norm_epsilon=1e-6
    )
    assert refusal(llama, value).splitlines() == [
        f"`{llama / 'config.json'}` and the recipe differ in 4 places; the model is",
        "  model:",
        "    num_layers: 4  # the recipe: 2",
        "    rotary_base: 5000  # the recipe: 10000",
        "    norm_epsilon: 1e-05  # the recipe: 1e-06",
        "    untie_embeddings_and_output_weights: true  # the recipe: false",
        "help: write these lines into the recipe and compile again, or load another model",
    ]


def test_weights_of_experts_that_are_not_renormalized_need_an_option(tmp_path: Path) -> None:
    name = "qwen3_moe, weights not renormalized"
    value = {"megatron.args": {}}
    wanted = plan(name)
    text = refusal(save(name, tmp_path), lambda key: value.get(key) if key in value else wanted(key))
    assert "  megatron: args:\n    moe_router_pre_softmax: true  # the recipe: false" in text


def test_older_config_files_read_the_same(llama: Path) -> None:
    scaling = {"type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    edit(llama, rope_parameters="absent", rope_theta=5000.0, rope_scaling=scaling, head_dim="absent")
    assert open_model(llama, plan("llama3")).sizes.head == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "gemma3"},
            "`model_type: gemma3`, which sftc cannot read\nhelp: sftc reads llama, mistral, qwen2",
        ),
        ({"hidden_act": "gelu"}, "`hidden_act: gelu`"),
        ({"sliding_window": 16}, "`sliding_window: 16` is shorter than `train.seq_length: 32`"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "rope scaling of type `yarn`"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 2.0}},
            "`low_freq_factor: 2.0` (Megatron: 1)",
        ),
        ({"attention_bias": True}, "`attention_bias` and `mlp_bias` differ"),
        ({"quantization_config": {}}, "quantized weights"),
        ({"num_hidden_layers": "absent"}, "does not say `num_hidden_layers`"),
    ],
)
def test_what_no_recipe_can_say_is_refused(llama: Path, changes: dict[str, Any], message: str) -> None:
    edit(llama, **changes)
    assert message in refusal(llama, plan("llama3"))


@pytest.mark.parametrize("changes", [{"sliding_window": 32}, {"sliding_window": 16, "use_sliding_window": False}])
def test_a_window_that_limits_nothing_is_no_matter(llama: Path, changes: dict[str, Any]) -> None:
    edit(llama, **changes)
    open_model(llama, plan("llama3"))


def test_missing_and_left_over_tensors_are_named(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.0.extra.weight"] = tensors.pop("model.norm.weight")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(4, 4)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.int8)
    tensors["model.layers.3.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)  # of older files
    save_file(tensors, llama / "model.safetensors")
    text = refusal(llama, plan("llama3"))
    assert "  1 are missing:\n    model.norm.weight" in text
    assert "  1 have no place in the model:\n    model.layers.0.extra.weight" in text
    assert "    model.layers.1.mlp.up_proj.weight is [4, 4], the recipe makes it [64, 32]" in text
    assert "    lm_head.weight is I8" in text


def test_adapters_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "holds adapters and no model" in refusal(tmp_path, plan("llama3"))


def test_a_second_copy_of_a_tied_embedding_is_left_out(tmp_path: Path) -> None:
    folder = save("smollm2", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    open_model(folder, plan("smollm2"))


def test_torn_and_absent_files_are_told(tmp_path: Path) -> None:
    whole = save("llama3", tmp_path / "whole", shard="20KB")
    first = sorted(whole.glob("model-*"))[0]
    for number, (spoil, message) in enumerate(
        [
            (lambda path: (path / first.name).unlink(), f"names files that are not there: {first.name}"),
            (lambda path: (path / first.name).write_bytes(first.read_bytes()[:-5]), "no whole safetensors file"),
            (lambda path: (path / first.name).write_text("version https://git-lfs"), "is a pointer of git-lfs"),
            (lambda path: (path / first.name).write_bytes(b""), "no whole safetensors file"),
            (lambda path: (path / "config.json").unlink(), "there is no `"),
            (lambda path: (path / "model.safetensors.index.json").unlink(), "holds neither `model.safetensors` nor"),
        ]
    ):
        copy = shutil.copytree(whole, tmp_path / str(number))
        spoil(copy)
        assert message in refusal(copy, plan("llama3"))


def test_pickled_weights_are_refused_with_the_remedy(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    assert "as `pytorch_model.bin`, and sftc reads safetensors only\nhelp: load it with" in refusal(
        llama, plan("llama3")
    )


def test_rounding_and_padding_are_said(llama: Path) -> None:
    value = plan("llama3")
    lines = notices(open_model(llama, value), value)
    assert lines[0].endswith("39 tensors, 0.00 GB of F32")
    assert lines[1] == "WARNING: float32 weights are rounded to bf16, the precision of the training"
    assert lines[2].startswith("WARNING: the vocabulary is padded by 28 rows of zeros to a multiple of 128")


def test_a_directory_that_is_not_there_is_told_with_the_place(tmp_path: Path) -> None:
    text = refusal(tmp_path / "absent", plan("llama3"))
    assert f"there is no directory `{tmp_path / 'absent'}`" in text
    assert f"here `{Path.cwd()}`" in text
