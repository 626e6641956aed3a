"""What is ours in a model: the make of its layers, its first weights, its adapters."""

from dataclasses import replace
from typing import Any

from .bundle import Bundle
from .checkpoint.start import Start
from .errors import UserError
from .lora.settings import Settings as Lora
from .megatron import Adapt, FirstWeights, Model


def model_of(bundle: Bundle, begun: Start | None, *, compiled: bool = False) -> Model:
    """begun: the start whose weights the model begins with; None if a checkpoint holds all of them. compiled: layers
    that train go through torch's compiler.
    """
    return Model(
        layer_spec=layer_spec if bundle.value("model.transformer_impl") == "local" else None,
        first_weights=None if begun is None else _first_weights(bundle, begun),
        adapt=None if begun is None else _adapting(bundle, begun),
        variable_lengths=bundle.value("data.padding") == "longest",
        fused_loss=bundle.value("train.fused_linear_cross_entropy", False),
        compiled=compiled,
        packed=bool(bundle.value("data.packing", False)),
    )


def _first_weights(bundle: Bundle, begun: Start) -> FirstWeights | None:
    if begun.weights is None:
        return None
    from .hf.check import open_model
    from .hf.load import loader

    return loader(open_model(begun.weights, bundle.value))


def _adapting(bundle: Bundle, begun: Start) -> Adapt | None:
    lora = Lora.of(bundle.value)
    if lora is None:
        return None
    from .lora.start import adapting

    return adapting(lora, begun.checkpoint)


def layer_spec(transformer: Any, vp_stage: int | None = None) -> Any:
    """Megatron's own local block, dense or mixture of experts, with the attention and norms of this package.

    transformer: Megatron's TransformerConfig, which says what layers this pipeline stage builds.
    """
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

    from .norms import norm_for

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

    from .attention import TorchAttention

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
