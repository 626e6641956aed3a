"""What a Hugging Face `config.json` says, in the words of a recipe, and what no recipe can say."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ..errors import UserError
from .files import read_json
from .tables import FAMILIES, Family

FILE = "config.json"
OTHERS = (
    f"sftc reads {', '.join(FAMILIES)} by itself; others are handed over to Megatron-Bridge where it is installed: "
    "`pip install 'sftc[bridge]'`"
)
# Megatron-Bridge is asked for the weights of `model.load` alone, and for a `model_type` that has no table here.
NO_SHAPE = (
    "leave `hf` out and write the model's sizes, or a `preset`, into the section `model`: sftc reads the config.json "
    f"of {', '.join(FAMILIES)}"
)
UNSAID = (
    "what Megatron has an option for goes under `megatron.args`, beside the sizes in the section `model`; `model.load` "
    "then names a Megatron checkpoint, without `hf:`"
)
# Llama 3.1's scaling as Megatron computes it; only the factor is an option there.
LLAMA3 = {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}
PRE_SOFTMAX = "megatron.args.moe_router_pre_softmax"


def read_config(directory: Path) -> tuple[dict[str, Any], Family]:
    """config.json and the family it belongs to. UserError for a family that sftc does not know."""
    if not directory.is_dir():
        raise UserError(
            f"there is no directory `{directory}`, which `model.load` names",
            help=f"paths are relative to the directory that launch.sh works in, here `{Path.cwd()}`",
        )
    if (directory / "adapter_config.json").is_file() and not (directory / FILE).is_file():
        raise UserError(
            f"`{directory}`, which `model.load` names, holds adapters and no model",
            help="name the model that they were trained beside, or one that they are merged into: `sftc export` writes "
            "it, and so does `merge_and_unload` of peft with `save_pretrained`",
        )
    config = read_json(directory / FILE)
    return config, family_of(config, directory / FILE)


def family_of(config: Mapping[str, Any], path: PurePath) -> Family:
    """UserError for a family that sftc does not know, or weights that cannot be trained; `path` is for the message."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"`{path}` has `model_type: {kind}`, which sftc cannot read", help=OTHERS)
    if "quantization_config" in config:
        raise UserError(
            f"`{path}` describes quantized weights (`quantization_config`), which cannot be trained",
            help="use the model in bfloat16, or dequantize it with transformers",
        )
    return FAMILIES[kind]


def recipe_values(config: Mapping[str, Any], family: Family, path: PurePath) -> dict[str, Any]:
    """The recipe keys that follow from config.json, with their values. UserError if it leaves a size open."""

    def stated(*names: str) -> Any:
        for name in names:
            if config.get(name) is not None:
                return config[name]
        raise UserError(f"`{path}` does not say `{names[0]}`", help="download the model again")

    heads, rope = stated("num_attention_heads"), rope_of(config, family)
    values: dict[str, Any] = {
        "model.num_layers": stated("num_hidden_layers"),
        "model.hidden_size": stated("hidden_size"),
        "model.num_attention_heads": heads,
        "model.num_query_groups": config.get("num_key_value_heads") or heads,
        "model.kv_channels": config.get("head_dim") or stated("hidden_size") // heads,
        "model.vocab_size": stated("vocab_size"),
        "model.max_position_embeddings": stated("max_position_embeddings"),
        "model.position_embedding_type": "rope",
        "model.rotary_base": rope["rope_theta"],
        "model.rotary_percent": rope.get("partial_rotary_factor", 1.0),
        "model.use_rope_scaling": rope["rope_type"] == "llama3",
        "model.normalization": "RMSNorm",
        "model.norm_epsilon": stated("rms_norm_eps"),
        "model.swiglu": True,
        "model.add_bias_linear": bool(config.get("mlp_bias")),
        "model.add_qkv_bias": family.qkv_bias,
        "model.qk_layernorm": family.qk_norm,
        "model.untie_embeddings_and_output_weights": not config.get("tie_word_embeddings", False),
    }
    if values["model.use_rope_scaling"]:
        values["model.rope_scaling_factor"] = rope.get("factor")
    if not is_sparse(family):
        return values | {"model.ffn_hidden_size": stated("intermediate_size"), "model.num_experts": None}
    return values | {
        "model.moe_ffn_hidden_size": stated("moe_intermediate_size", "intermediate_size"),
        "model.num_experts": stated("num_local_experts", "num_experts"),
        "model.moe_router_topk": stated("num_experts_per_tok"),
        # Mixtral and `norm_topk_prob` let the weights of the chosen experts add up to one
        PRE_SOFTMAX: not config.get("norm_topk_prob", config["model_type"] == "mixtral"),
    }


def unsayable(config: Mapping[str, Any], family: Family, seq_length: int) -> list[str]:
    """What the model does and Megatron, as a recipe starts it, would not; one sentence each."""
    found = []
    rope = rope_of(config, family)
    if rope["rope_type"] not in ("default", "llama3"):
        found.append(f"rope scaling of type `{rope['rope_type']}`")
    if rope["rope_type"] == "llama3":
        found += [f"`{key}: {rope.get(key)}` (Megatron: {fix})" for key, fix in LLAMA3.items() if rope.get(key) != fix]
    if config.get("hidden_act", "silu") != "silu":
        found.append(f"`hidden_act: {config['hidden_act']}`")
    window = sliding_window(config)
    if window is not None and window < seq_length:
        found.append(f"`sliding_window: {window}` is shorter than `train.seq_length: {seq_length}`")
    if bool(config.get("attention_bias")) != bool(config.get("mlp_bias")):
        found.append("`attention_bias` and `mlp_bias` differ")
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        found.append("dense layers among layers of experts (`mlp_only_layers`, `decoder_sparse_step`)")
    return found


def rope_of(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """`rope_theta`, `rope_type` and what belongs to the type: older files spread them over three keys."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    rope["rope_type"] = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.setdefault("rope_theta", config.get("rope_theta") or family.rope_theta)
    if "partial_rotary_factor" in config:
        rope.setdefault("partial_rotary_factor", config["partial_rotary_factor"])
    return rope


def sliding_window(config: Mapping[str, Any]) -> int | None:
    """How many tokens back a token looks, if it is limited in any layer."""
    kinds = config.get("layer_types")
    if not config.get("use_sliding_window", True) or (kinds and "sliding_attention" not in kinds):
        return None
    window: int | None = config.get("sliding_window")
    return window


def is_sparse(family: Family) -> bool:
    return any("{expert}" in row.names[0] for row in family.rows)
