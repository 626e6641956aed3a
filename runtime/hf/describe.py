"""config.json and generation_config.json of an exported model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from .config import FILE, LLAMA3, OTHERS
from .files import read_json
from .tables import FAMILIES

GENERATION = "generation_config.json"


def kind_of(value: Callable[[str], Any]) -> str:
    """The `model_type` that computes what the plan's values describe. UserError if none of ours does."""
    sparse, norm, bias = (value(f"model.{key}") for key in ("num_experts", "qk_layernorm", "add_qkv_bias"))
    same = {"normalization": "RMSNorm", "swiglu": True, "position_embedding_type": "rope", "rotary_percent": 1.0}
    odd = [f"{key}: {value(f'model.{key}')}" for key, usual in same.items() if value(f"model.{key}") != usual]
    if bias and (norm or sparse):
        odd.append("add_qkv_bias: true")
    if value("model.add_bias_linear") and (norm or sparse or bias):
        odd.append("add_bias_linear: true")
    if sparse and not norm and value("megatron.args").get("moe_router_pre_softmax"):
        odd.append("moe_router_pre_softmax: true")
    if odd:
        raise UserError(f"no Hugging Face model that sftc writes has {', '.join(odd)}", help=OTHERS)
    if sparse:
        return "qwen3_moe" if norm else "mixtral"
    return "qwen3" if norm else "qwen2" if bias else "llama"


def config_of(
    value: Callable[[str], Any], source: Path | None, dtype: str, tokens: Mapping[str, int]
) -> dict[str, Any]:
    """Of a run that started from the Hugging Face directory `source`: its own, so that nothing in it is lost."""
    config = {**_made(value), **tokens} if source is None else read_json(source / FILE)
    config.pop("transformers_version", None)
    names = [name for name in ("dtype", "torch_dtype") if name in config] or ["torch_dtype"]
    return config | dict.fromkeys(names, dtype)


def generation_of(source: Path | None, tokens: Mapping[str, int]) -> dict[str, Any]:
    if source is not None and (source / GENERATION).is_file():
        return read_json(source / GENERATION)
    return dict(tokens)


def _made(value: Callable[[str], Any]) -> dict[str, Any]:
    def model(key: str) -> Any:
        return value(f"model.{key}")

    kind = kind_of(value)
    biases = model("add_bias_linear")
    config = {
        "architectures": [FAMILIES[kind].architecture],
        "model_type": kind,
        "num_hidden_layers": model("num_layers"),
        "hidden_size": model("hidden_size"),
        "intermediate_size": model("ffn_hidden_size"),
        "num_attention_heads": model("num_attention_heads"),
        "num_key_value_heads": model("num_query_groups"),
        "head_dim": model("kv_channels"),
        "vocab_size": model("vocab_size"),
        "max_position_embeddings": model("max_position_embeddings"),
        "rope_theta": float(model("rotary_base")),
        "rope_scaling": None,
        "rms_norm_eps": model("norm_epsilon"),
        "hidden_act": "silu",
        "attention_dropout": model("attention_dropout"),
        "initializer_range": model("init_method_std"),
        "tie_word_embeddings": not model("untie_embeddings_and_output_weights"),
        "use_cache": True,
    }
    if model("use_rope_scaling"):
        config["rope_scaling"] = {"rope_type": "llama3", "factor": model("rope_scaling_factor"), **LLAMA3}
    if kind == "llama":
        config |= {"attention_bias": biases, "mlp_bias": biases}
    if kind in ("mixtral", "qwen2", "qwen3", "qwen3_moe"):
        config |= {"sliding_window": None, "use_sliding_window": False}
    width = model("moe_ffn_hidden_size") or model("ffn_hidden_size")
    topk = model("moe_router_topk") or 2  # Megatron's default
    if kind == "mixtral":
        config |= {"intermediate_size": width, "num_local_experts": model("num_experts"), "num_experts_per_tok": topk}
    if kind == "qwen3_moe":
        config |= {
            "moe_intermediate_size": width,
            "num_experts": model("num_experts"),
            "num_experts_per_tok": topk,
            "norm_topk_prob": not value("megatron.args").get("moe_router_pre_softmax", False),
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    return config
