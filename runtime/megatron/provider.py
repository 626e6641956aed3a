"""The function that builds the model for Megatron 0.17 and 0.18, which 0.19 has itself."""

from collections.abc import Callable
from typing import Any

from ..errors import UserError
from .model import Model

# Options that ask for other layers than the ones built here, with their values when they ask for nothing.
OTHER_LAYERS = {
    "experimental_attention_variant": None,
    "heterogeneous_layers_config_encoded_json": None,
    "heterogeneous_layers_config_path": None,
    "use_grouped_gemm_for_dense_mlp": False,
    "use_transformer_engine_op_fuser": False,
}


def model_provider(args: Any, model: Model) -> Callable[..., Any]:
    """What pretrain() calls for each model chunk of this rank. UserError for layers that it cannot build."""
    for name, usual in OTHER_LAYERS.items():
        if getattr(args, name, usual) != usual:
            raise UserError(
                f"`--{name.replace('_', '-')}` asks for layers that sftc builds with Megatron 0.19 only",
                help=f'leave out `{name}` of `megatron.args`, or set `megatron.target: "0.19"`',
            )

    def build(
        pre_process: bool = True,
        post_process: bool = True,
        vp_stage: int | None = None,
        config: Any = None,
        pg_collection: Any = None,
    ) -> Any:
        from megatron.core.models.gpt import GPTModel
        from megatron.training.arguments import core_transformer_config_from_args

        if config is None:
            config = core_transformer_config_from_args(args)
            config.variable_seq_lengths = model.tells_lengths(args)
        layer_spec = model.layer_spec or _transformer_engine
        chunk = GPTModel(
            config=config,
            transformer_layer_spec=layer_spec(config, vp_stage),
            vocab_size=args.padded_vocab_size,
            max_sequence_length=args.max_position_embeddings,
            pre_process=pre_process,
            post_process=post_process,
            fp16_lm_cross_entropy=args.fp16_lm_cross_entropy,
            share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
            position_embedding_type=args.position_embedding_type,
            rotary_percent=args.rotary_percent,
            rotary_base=args.rotary_base,
            rope_scaling=args.use_rope_scaling,
            rope_scaling_factor=args.rope_scaling_factor,
            seq_len_interpolation_factor=args.rotary_seq_len_interpolation_factor,
            pg_collection=pg_collection,
            vp_stage=vp_stage,
        )
        model.finish([chunk])
        return chunk

    return build


def _transformer_engine(config: Any, vp_stage: int | None) -> Any:
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

    return get_gpt_decoder_block_spec(
        config,
        use_transformer_engine=True,
        normalization=config.normalization,
        qk_l2_norm=config.qk_l2_norm,
        vp_stage=vp_stage,
    )
