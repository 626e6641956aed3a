"""`model.hf`: the config.json beside the recipe gives the shape, under the same rules as at launch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.compile import Checked, artifacts
from sftc.compiler.parameters import parameters
from sftc.compiler.plan import FromConfig, FromRecipe

type Check = Callable[..., Checked]

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": True,
}
SPARSE = {"num_local_experts": 8, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 768}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(hidden_size=64)`: a config.json in the folder `model` beside the recipe, with these fields changed."""

    def written(**fields: Any) -> Path:
        path = tmp_path / "model" / "config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({key: value for key, value in {**CONFIG, **fields}.items() if value is not None}))
        return path

    return written


def test_the_same_model_by_name_and_by_its_config_json(check: Check, write: Callable[..., Path]) -> None:
    """CONFIG is that of Llama 3.2 1B."""
    write()
    by_file, by_name = check("hf: model"), check("preset: llama-3.2-1b")
    assert by_file.plan is not None, by_file.diagnostics
    assert by_name.plan is not None
    assert parameters(by_file.plan).total == 1_235_814_400
    named = {key: item.value for key, item in by_name.plan.values.items() if key not in ("model.preset", "model.hf")}
    filed = {key: item.value for key, item in by_file.plan.values.items() if key not in ("model.preset", "model.hf")}
    assert filed == named
    assert json.dumps(filed) == json.dumps(named), "500000 and 500000.0 would be other bytes"
    assert by_file.plan.arguments == by_name.plan.arguments


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("llama", "model.add_qkv_bias", False),
        ("mistral", "model.qk_layernorm", False),
        ("qwen2", "model.add_qkv_bias", True),
        ("qwen3", "model.qk_layernorm", True),
        ("mixtral", "model.moe_ffn_hidden_size", 768),
        ("qwen3_moe", "model.num_experts", 8),
    ],
)
def test_every_family_whose_weights_are_read(
    check: Check, write: Callable[..., Path], kind: str, key: str, value: Any
) -> None:
    write(model_type=kind, rope_scaling=None, **SPARSE)
    plan = check("hf: model").plan
    assert plan is not None
    assert plan[key] == value
    assert plan.values[key].origin == FromConfig()
    assert FromConfig().to_json() == {"from": "config.json"}


def test_a_file_may_be_named_and_what_agrees_may_be_said(check: Check, write: Callable[..., Path]) -> None:
    write()
    plan = check("hf: model/config.json", "num_layers: 16", "norm_epsilon: 1.0e-5").plan
    assert plan is not None
    assert plan.values["model.num_layers"].origin == FromRecipe()


def test_weights_of_experts_that_do_not_add_up_to_one_are_an_option(check: Check, write: Callable[..., Path]) -> None:
    write(model_type="qwen3_moe", rope_scaling=None, norm_topk_prob=False, **SPARSE)
    plan = check("hf: model", more="megatron:\n  args:\n    manual_gc: true").plan
    assert plan is not None
    assert plan["megatron.args"] == {"moe_router_pre_softmax": True, "manual_gc": True}
    assert plan.values["megatron.args"].origin.to_json() == {"from": "config.json", "recipe": ["manual_gc"]}
    write(model_type="qwen3_moe", rope_scaling=None, norm_topk_prob=True, **SPARSE)
    refused = check("hf: model", more="megatron:\n  args:\n    moe_router_pre_softmax: true")
    assert [one.code for one in refused.diagnostics] == ["SFTC408"]


def test_a_change_of_the_file_changes_one_digest(check: Check, write: Callable[..., Path]) -> None:
    def dependencies() -> dict[str, str]:
        manifest = next(one for one in artifacts(check("hf: model")) if one.path == "manifest.json")
        listed = json.loads(manifest.content)["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {one["name"]: one["digest"]["sha256"] for one in listed}

    write()
    before = dependencies()
    write(architectures=["LlamaForCausalLM"])
    after = dependencies()
    assert {name for name in before if before[name] != after[name]} == {"config.json"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
        ({"num_hidden_layers": None}, "does not say `num_hidden_layers`"),
        ({"sliding_window": 512}, "is shorter than `train.seq_length: 1024`"),
        ({"mlp_bias": True}, "`attention_bias` and `mlp_bias` differ"),
        ({"rope_theta": 10000.5}, "`rope_theta: 10000.5` (Megatron: whole numbers)"),
        ({"vocab_size": "many"}, 'makes `model.vocab_size` "many"'),
        ({"hidden_size": "wide", "head_dim": None}, "is no config.json of a model"),
        ({"rope_scaling": "llama3"}, "is no config.json of a model"),
    ],
)
def test_what_no_recipe_can_say_is_told(
    check: Check, write: Callable[..., Path], fields: dict[str, Any], words: str
) -> None:
    write(**fields)
    found = check("hf: model")
    assert found.plan is None
    assert [(one.code, words in one.message) for one in found.diagnostics] == [("SFTC409", True)]
    assert "`model/config.json`" in found.diagnostics[0].message


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"null"])
def test_what_is_no_json_object_is_told(check: Check, write: Callable[..., Path], text: bytes) -> None:
    write().write_bytes(text)
    assert [one.code for one in check("hf: model").diagnostics] == ["SFTC409"]


def test_what_cannot_be_read_is_told(check: Check, write: Callable[..., Path]) -> None:
    write().write_bytes(b"\xff")
    assert [one.code for one in check("hf: model").diagnostics] == ["SFTC461"]
    assert [one.code for one in check("hf: elsewhere").diagnostics] == ["SFTC461"]
