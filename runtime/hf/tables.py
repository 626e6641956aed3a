"""Which tensors of a Hugging Face model make which tensor of Megatron's: one row per tensor of Megatron's.

A row names Megatron's tensor as its modules do (`local` layers and Transformer Engine name some differently) and as its
checkpoints do; `{layer}` and `{expert}` count over the whole model from 0. Then the tensors that it is made of, with
their shapes in the words of `Sizes`, and how they lie in it (`cuts.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

type Layout = Literal["whole", "vocabulary", "groups", "halves", "columns"]
type Part = tuple[str, tuple[str, ...]]

LAYER = "decoder.layers.{layer}."
HF_LAYER = "model.layers.{layer}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`names` are Megatron's, `parts` are (name, shape) of the Hugging Face tensors."""

    names: tuple[str, ...]
    layout: Layout
    parts: tuple[Part, ...]


def _row(names: str, layout: Layout, *parts: Part) -> Row:
    return Row(names=tuple(names.split()), layout=layout, parts=parts)


def _layer(names: str, layout: Layout, *parts: Part) -> Row:
    inside = tuple((HF_LAYER + name, shape) for name, shape in parts)
    return Row(names=tuple(LAYER + name for name in names.split()), layout=layout, parts=inside)


EMBEDDING = _row("embedding.word_embeddings.weight", "vocabulary", ("model.embed_tokens.weight", ("vocab", "hidden")))
OUTPUT = _row("output_layer.weight", "vocabulary", ("lm_head.weight", ("vocab", "hidden")))
# The last pipeline stage holds a copy of tied embeddings under the name of the output layer.
TIED_OUTPUT = _row("output_layer.weight", "vocabulary", *EMBEDDING.parts)
FINAL_NORM = _row("decoder.final_layernorm.weight", "whole", ("model.norm.weight", ("hidden",)))

ATTENTION = (
    _layer(
        "self_attention.linear_qkv.weight",
        "groups",
        ("self_attn.q_proj.weight", ("query", "hidden")),
        ("self_attn.k_proj.weight", ("key", "hidden")),
        ("self_attn.v_proj.weight", ("key", "hidden")),
    ),
    _layer("self_attention.linear_proj.weight", "columns", ("self_attn.o_proj.weight", ("hidden", "query"))),
    _layer(
        "input_layernorm.weight self_attention.linear_qkv.layer_norm_weight",
        "whole",
        ("input_layernorm.weight", ("hidden",)),
    ),
    _layer(
        "pre_mlp_layernorm.weight mlp.linear_fc1.layer_norm_weight",
        "whole",
        ("post_attention_layernorm.weight", ("hidden",)),
    ),
)
QKV_BIAS = _layer(
    "self_attention.linear_qkv.bias",
    "groups",
    ("self_attn.q_proj.bias", ("query",)),
    ("self_attn.k_proj.bias", ("key",)),
    ("self_attn.v_proj.bias", ("key",)),
)
QK_NORM = (
    _layer("self_attention.q_layernorm.weight", "whole", ("self_attn.q_norm.weight", ("head",))),
    _layer("self_attention.k_layernorm.weight", "whole", ("self_attn.k_norm.weight", ("head",))),
)
MLP = (
    _layer(
        "mlp.linear_fc1.weight",
        "halves",
        ("mlp.gate_proj.weight", ("ffn", "hidden")),
        ("mlp.up_proj.weight", ("ffn", "hidden")),
    ),
    _layer("mlp.linear_fc2.weight", "columns", ("mlp.down_proj.weight", ("hidden", "ffn"))),
)
OTHER_BIASES = (
    _layer("self_attention.linear_proj.bias", "whole", ("self_attn.o_proj.bias", ("hidden",))),
    _layer("mlp.linear_fc1.bias", "halves", ("mlp.gate_proj.bias", ("ffn",)), ("mlp.up_proj.bias", ("ffn",))),
    _layer("mlp.linear_fc2.bias", "whole", ("mlp.down_proj.bias", ("hidden",))),
)


def _experts(block: str, gate: str, up: str, down: str) -> tuple[Row, ...]:
    # by module: one after the other, or grouped by Transformer Engine; the third name is a checkpoint's
    def names(linear: str) -> str:
        return (
            f"mlp.experts.local_experts.{{expert}}.{linear}.weight mlp.experts.{linear}.weight{{expert}} "
            f"mlp.experts.experts.{{expert}}.{linear}.weight"
        )

    one = f"{block}.experts.{{expert}}"
    wide = ("expert_ffn", "hidden")
    return (
        _layer("mlp.router.weight", "whole", (f"{block}.gate.weight", ("experts", "hidden"))),
        _layer(names("linear_fc1"), "halves", (f"{one}.{gate}.weight", wide), (f"{one}.{up}.weight", wide)),
        _layer(names("linear_fc2"), "columns", (f"{one}.{down}.weight", ("hidden", "expert_ffn"))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A `model_type`. `rows` are those of its MLP or experts; `rope_theta` is what its config.json may leave out."""

    architecture: str
    rows: tuple[Row, ...] = MLP
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_theta: float = 10000.0
    # tensors of older files that are computed and no weights
    ignored: tuple[str, ...] = ("model.layers.{layer}.self_attn.rotary_emb.inv_freq",)


FAMILIES = {
    "llama": Family(architecture="LlamaForCausalLM"),
    "mistral": Family(architecture="MistralForCausalLM"),
    "qwen2": Family(architecture="Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": Family(architecture="Qwen3ForCausalLM", qk_norm=True),
    "mixtral": Family(
        architecture="MixtralForCausalLM", rows=_experts("block_sparse_moe", "w1", "w3", "w2"), rope_theta=1e6
    ),
    "qwen3_moe": Family(
        architecture="Qwen3MoeForCausalLM", rows=_experts("mlp", "gate_proj", "up_proj", "down_proj"), qk_norm=True
    ),
}


def rows_of(family: Family, *, tied: bool, biases: bool) -> tuple[Row, ...]:
    """The whole table of a model: `tied` embeddings, `biases` in all its linear layers."""
    found = [EMBEDDING, *ATTENTION]
    if family.qkv_bias or biases:
        found.append(QKV_BIAS)
    if family.qk_norm:
        found += QK_NORM
    found += family.rows
    if biases:
        found += OTHER_BIASES
    return (*found, FINAL_NORM, TIED_OUTPUT if tied else OUTPUT)


def places(row: Row, layers: int, experts: int) -> Iterator[dict[str, Any]]:
    """Every layer and expert that has a tensor of this row, as the fields of its names."""
    if "{layer}" not in row.names[0]:
        yield {}
        return
    for layer in range(layers):
        if "{expert}" not in row.names[0]:
            yield {"layer": layer}
        else:
            yield from ({"layer": layer, "expert": expert} for expert in range(experts))
