"""The count of a plan's parameters is the count of the tensors that transformers makes of the same model."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sftc.compiler.compile import Checked  # noqa: E402
from sftc.compiler.parameters import parameters  # noqa: E402

# By preset: the class of its config, and what it says beyond the fields that all share, from the plan's values.
KINDS: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "llama-2-7b": ("LlamaConfig", lambda _: {}),
    "llama-3.1-8b": ("LlamaConfig", lambda _: {}),
    "llama-3.2-1b": ("LlamaConfig", lambda _: {}),
    "smollm2-360m": ("LlamaConfig", lambda _: {}),
    "mistral-7b-v0.3": ("MistralConfig", lambda _: {}),
    "qwen2.5-0.5b": ("Qwen2Config", lambda _: {}),
    "qwen2.5-7b": ("Qwen2Config", lambda _: {}),
    "qwen3-4b": ("Qwen3Config", lambda _: {}),
    "qwen3-30b-a3b": (
        "Qwen3MoeConfig",
        lambda plan: {
            "num_experts": plan["model.num_experts"],
            "moe_intermediate_size": plan["model.moe_ffn_hidden_size"],
        },
    ),
    "mixtral-8x7b": ("MixtralConfig", lambda plan: {"num_local_experts": plan["model.num_experts"]}),
    "gpt-oss-20b": ("GptOssConfig", lambda plan: {"num_local_experts": plan["model.num_experts"]}),
    "deepseek-v2-lite": (
        "DeepseekV2Config",
        lambda plan: {
            "moe_intermediate_size": plan["model.moe_ffn_hidden_size"],
            "n_routed_experts": plan["model.num_experts"],
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "q_lora_rank": None,
            "kv_lora_rank": plan["megatron.args"]["kv_lora_rank"],
            "qk_nope_head_dim": plan["megatron.args"]["qk_head_dim"],
            "qk_rope_head_dim": plan["megatron.args"]["qk_pos_emb_head_dim"],
            "v_head_dim": plan["megatron.args"]["v_head_dim"],
        },
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_transformers_makes_as_many(check: Callable[..., Checked], name: str) -> None:
    plan = check(f"preset: {name}").plan
    assert plan is not None
    kind, more = KINDS[name]
    config = getattr(transformers, kind)(
        num_hidden_layers=plan["model.num_layers"],
        hidden_size=plan["model.hidden_size"],
        intermediate_size=plan["model.ffn_hidden_size"],
        num_attention_heads=plan["model.num_attention_heads"],
        num_key_value_heads=plan["model.num_query_groups"],
        head_dim=plan["model.kv_channels"],
        vocab_size=plan["model.vocab_size"],
        max_position_embeddings=plan["model.max_position_embeddings"],
        tie_word_embeddings=not plan["model.untie_embeddings_and_output_weights"],
        **more(plan),
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters(plan).total
