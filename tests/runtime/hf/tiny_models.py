"""A tiny random model of every family, by transformers, and the recipe of each."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

VOCAB, SEQ_LENGTH = 100, 32
SHAPE = {
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.3,
}
RECIPE = {
    "num_layers": 4,
    "hidden_size": 32,
    "ffn_hidden_size": 64,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
EXPERTS = {"num_experts": 4, "moe_router_topk": 2}
SPARSE = {**SHAPE, "num_experts_per_tok": 2}
QWEN3_MOE = {**SPARSE, "num_experts": 4, "moe_intermediate_size": 48, "head_dim": 16}

# By name: the class of the config, its arguments, what the recipe says beyond RECIPE.
MODELS: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {
    "llama2": (transformers.LlamaConfig, {**SHAPE, "num_key_value_heads": 4}, {"num_query_groups": None}),
    "llama3": (
        transformers.LlamaConfig,
        {**SHAPE, "rope_parameters": LLAMA3},
        {"rotary_base": 5000, "use_rope_scaling": True, "rope_scaling_factor": 32.0},
    ),
    "biases": (
        transformers.LlamaConfig,
        {**SHAPE, "attention_bias": True, "mlp_bias": True},
        {"add_bias_linear": True},
    ),
    "smollm2": (
        transformers.LlamaConfig,
        {**SHAPE, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}},
        {"rotary_base": 100000, "untie_embeddings_and_output_weights": False},
    ),
    "mistral": (transformers.MistralConfig, {**SHAPE, "sliding_window": None}, {}),
    "qwen2": (
        transformers.Qwen2Config,
        {**SHAPE, "tie_word_embeddings": True},
        {"add_qkv_bias": True, "untie_embeddings_and_output_weights": False},
    ),
    "qwen3": (transformers.Qwen3Config, {**SHAPE, "head_dim": 16}, {"kv_channels": 16, "qk_layernorm": True}),
    "mixtral": (transformers.MixtralConfig, {**SPARSE, "num_local_experts": 4}, {**EXPERTS, "rotary_base": 1000000}),
    "qwen3_moe": (
        transformers.Qwen3MoeConfig,
        {**QWEN3_MOE, "norm_topk_prob": True},
        {**EXPERTS, "moe_ffn_hidden_size": 48, "kv_channels": 16, "qk_layernorm": True},
    ),
    "qwen3_moe, weights not renormalized": (
        transformers.Qwen3MoeConfig,
        {**QWEN3_MOE, "norm_topk_prob": False},
        {**EXPERTS, "moe_ffn_hidden_size": 48, "kv_channels": 16, "qk_layernorm": True},
    ),
}
# What `megatron.args` adds.
RAW = {"qwen3_moe, weights not renormalized": {"moe_router_pre_softmax": True}}


def save(name: str, folder: Path, *, dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Path:
    """The model `name`, with norms and biases that are not what they are before training."""
    kind, arguments, _ = MODELS[name]
    torch.manual_seed(list(MODELS).index(name))
    model = transformers.AutoModelForCausalLM.from_config(kind(**arguments)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def logits(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    """[b, s] → [b, s, vocabulary], by transformers in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model.eval()(tokens).logits


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every file."""
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found
