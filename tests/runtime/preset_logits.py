"""Run by a test in a process of its own: models that few layers express, by Megatron and by transformers.

    python preset_logits.py DEEPSEEK_ARGS GPT_OSS_ARGS

Each argument file is of a shrunk preset. Prints a JSON object: name → [largest difference of a logit, deviation of the
logits].
"""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

import torch
import transformers

from sftc.runtime import cpu
from sftc.runtime.megatron import read_argument_file

cpu.activate()
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}

from megatron.core import mpu, tensor_parallel  # noqa: E402
from megatron.core.models.gpt import GPTModel  # noqa: E402
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec  # noqa: E402
from megatron.training.argument_utils import core_transformer_config_from_args  # noqa: E402
from megatron.training.arguments import add_megatron_arguments, validate_args  # noqa: E402

from sftc.runtime.megatron.mends import mend_query_projection  # noqa: E402
from sftc.runtime.model import layer_spec  # noqa: E402
from sftc.runtime.norms import norm_for  # noqa: E402

# Torch-native layers lack windows and sinks; Megatron's own local ones, slow as they are, have them.
LOCAL = ["--transformer-impl", "local", "--no-persist-layer-norm", "--no-masked-softmax-fusion", "--no-rope-fusion"]
ON_CPU = [
    *("--distributed-backend", "gloo", "--use-cpu-initialization", "--no-bias-gelu-fusion"),
    *("--no-bias-swiglu-fusion", "--no-bias-dropout-fusion"),
]
SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "initializer_range": 0.3,
}
YARN = {"rope_type": "yarn", "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0}


def deepseek():
    rope = {**YARN, "rope_theta": 10000.0, "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0.707}
    return transformers.DeepseekV2Config(
        **SIZES,
        num_key_value_heads=4,
        intermediate_size=64,
        moe_intermediate_size=24,
        n_routed_experts=4,
        n_shared_experts=2,
        first_k_dense_replace=1,
        q_lora_rank=None,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=16,
        v_head_dim=12,
        norm_topk_prob=False,
        routed_scaling_factor=1.0,
        rope_parameters=rope,
    )


def gpt_oss():
    rope = {**YARN, "rope_theta": 150000.0, "factor": 32.0, "truncate": False}
    return transformers.GptOssConfig(
        **SIZES,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=24,
        num_local_experts=4,
        rms_norm_eps=1e-5,
        sliding_window=8,
        rope_parameters=rope,
    )


def whole_weights(hf):
    yield "embedding.word_embeddings.weight", hf["model.embed_tokens.weight"]
    yield "decoder.final_layernorm.weight", hf["model.norm.weight"]
    yield "output_layer.weight", hf["lm_head.weight"]


def deepseek_weights(hf, layer):
    old, new = f"model.layers.{layer}.", f"decoder.layers.{layer}."
    for theirs, ours in {
        "self_attn.q_proj": "self_attention.linear_q_proj",
        "self_attn.kv_a_proj_with_mqa": "self_attention.linear_kv_down_proj",
        "self_attn.kv_b_proj": "self_attention.linear_kv_up_proj",
        "self_attn.kv_a_layernorm": "self_attention.kv_layernorm",
        "self_attn.o_proj": "self_attention.linear_proj",
        "input_layernorm": "input_layernorm",
        "post_attention_layernorm": "pre_mlp_layernorm",
    }.items():
        yield f"{new}{ours}.weight", hf[f"{old}{theirs}.weight"]
    blocks = {"mlp.": "mlp."} if layer == 0 else {"mlp.shared_experts.": "mlp.shared_experts."}
    for theirs, ours in blocks.items():
        gate_up = [hf[f"{old}{theirs}{half}_proj.weight"] for half in ("gate", "up")]
        yield f"{new}{ours}linear_fc1.weight", torch.cat(gate_up)
        yield f"{new}{ours}linear_fc2.weight", hf[f"{old}{theirs}down_proj.weight"]
    if layer:
        yield f"{new}mlp.router.weight", hf[f"{old}mlp.gate.weight"]
        for expert in range(4):
            place = f"{new}mlp.experts.local_experts.{expert}."
            yield f"{place}linear_fc1.weight", hf[f"{old}mlp.experts.gate_up_proj"][expert]
            yield f"{place}linear_fc2.weight", hf[f"{old}mlp.experts.down_proj"][expert]


def gpt_oss_weights(hf, layer):
    old, new = f"model.layers.{layer}.", f"decoder.layers.{layer}."
    for kind in ("weight", "bias"):
        # per group of keys: its queries, its key, its value
        query, key, value = (hf[f"{old}self_attn.{name}_proj.{kind}"] for name in "qkv")
        parts = [query.view(2, 32, -1), key.view(2, 16, -1), value.view(2, 16, -1)]
        shape = (-1, 32) if kind == "weight" else (-1,)
        yield f"{new}self_attention.linear_qkv.{kind}", torch.cat(parts, dim=1).reshape(shape)
        yield f"{new}self_attention.linear_proj.{kind}", hf[f"{old}self_attn.o_proj.{kind}"]
        yield f"{new}mlp.router.{kind}", hf[f"{old}mlp.router.{kind}"]
    yield f"{new}self_attention.core_attention.softmax_offset", hf[f"{old}self_attn.sinks"]
    yield f"{new}input_layernorm.weight", hf[f"{old}input_layernorm.weight"]
    yield f"{new}pre_mlp_layernorm.weight", hf[f"{old}post_attention_layernorm.weight"]
    for expert in range(4):
        place, experts = f"{new}mlp.experts.local_experts.{expert}.", f"{old}mlp.experts."
        # gate and up alternate in the columns, and weights are [in, out]
        gate_up, bias = hf[f"{experts}gate_up_proj"][expert], hf[f"{experts}gate_up_proj_bias"][expert]
        yield f"{place}linear_fc1.weight", torch.cat([gate_up[:, ::2], gate_up[:, 1::2]], dim=1).T
        yield f"{place}linear_fc1.bias", torch.cat([bias[::2], bias[1::2]])
        yield f"{place}linear_fc2.weight", hf[f"{experts}down_proj"][expert].T
        yield f"{place}linear_fc2.bias", hf[f"{experts}down_proj_bias"][expert]


def local_spec(config):
    block = get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization=config.normalization)
    block.layer_norm = norm_for(config)
    for layer in block.layer_specs:
        layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = norm_for(config)
    return block


def megatron_model(words, native):
    parser = add_megatron_arguments(argparse.ArgumentParser(allow_abbrev=False))
    args = parser.parse_args([*words, *LOCAL, *ON_CPU])
    args.rank, args.world_size = 0, 1
    validate_args(args, {})
    config = core_transformer_config_from_args(args)
    spec = layer_spec(config) if native else local_spec(config)
    return GPTModel(
        config,
        spec,
        vocab_size=args.padded_vocab_size or args.vocab_size,
        max_sequence_length=args.max_position_embeddings,
        position_embedding_type=args.position_embedding_type,
        rotary_base=args.rotary_base,
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
    )


def compare(words, config, weights, native):
    torch.manual_seed(1)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "norm" in name or "bias" in name or "sinks" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    hf = theirs.state_dict()
    given = dict(whole_weights(hf))
    for layer in range(config.num_hidden_layers):
        given |= dict(weights(hf, layer))
    ours = megatron_model(words, native).eval()
    wanted = {name for name, _ in ours.named_parameters()}
    assert wanted == set(given), (sorted(wanted - set(given)), sorted(set(given) - wanted))
    tokens = torch.randint(0, 96, (2, 32))
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(given[name].reshape(parameter.shape) if given[name].ndim == 1 else given[name])
        found = ours(tokens, torch.arange(32).expand(2, 32), None)[..., :96]
        reference = theirs(tokens).logits
    return [(found - reference).abs().max().item(), reference.std().item()]


def main(deepseek_args, gpt_oss_args):
    mend_query_projection()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    mpu.initialize_model_parallel()
    tensor_parallel.model_parallel_cuda_manual_seed(7)
    with contextlib.redirect_stdout(sys.stderr):
        found = {
            "deepseek-v2-lite": compare(read_argument_file(Path(deepseek_args)), deepseek(), deepseek_weights, True),
            "gpt-oss-20b": compare(read_argument_file(Path(gpt_oss_args)), gpt_oss(), gpt_oss_weights, False),
        }
    print(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
