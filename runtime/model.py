"""What the layers are made of."""

from dataclasses import replace
from typing import Any

from .attention import TorchAttention
from .errors import UserError
from .norms import norm_for


def layer_spec(transformer: Any, vp_stage: int | None = None) -> Any:
    """Megatron's own local block, dense or mixture of experts, with the attention and norms of this package.

    transformer: Megatron's TransformerConfig, which says what layers this pipeline stage builds.
    """
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

    if transformer.window_size is not None or transformer.softmax_type != "vanilla":
        raise UserError(
            "torch-native attention has neither sliding windows nor attention sinks",
            help="set `model.transformer_impl: transformer_engine`",
        )
    block = get_gpt_decoder_block_spec(
        transformer, use_transformer_engine=False, normalization=transformer.normalization, vp_stage=vp_stage
    )
    norm = norm_for(transformer)
    layers = [_torch_native(layer, norm, transformer) for layer in block.layer_specs]
    return replace(block, layer_specs=layers, layer_norm=norm)


def _torch_native(layer: Any, norm: Any, transformer: Any) -> Any:
    from megatron.core.transformer.identity_op import IdentityOp

    attention = layer.submodules.self_attention
    changes: dict[str, Any] = {"core_attention": TorchAttention}
    for name in ("q_layernorm", "k_layernorm", "kv_layernorm"):
        asked = getattr(attention.submodules, name, None)
        if asked is not None and asked.__name__ not in ("IdentityOp", "L2Norm"):  # both are torch's already
            changes[name] = norm
    if transformer.multi_latent_attention and transformer.q_lora_rank is None:
        # Megatron's local layers name a norm for it all the same, and then refuse it as unused
        changes["q_layernorm"] = IdentityOp
    attention = replace(attention, submodules=replace(attention.submodules, **changes))
    submodules = replace(layer.submodules, self_attention=attention, input_layernorm=norm, pre_mlp_layernorm=norm)
    return replace(layer, submodules=submodules)
