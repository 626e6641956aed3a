"""How many parameters a plan's model has, from its resolved values alone.

Counts what Megatron's layers hold, without the rows that pad the vocabulary: the number that a model card gives.
Buffers (rotary frequencies, the router's load-balancing bias) are no parameters.
"""

from dataclasses import dataclass
from typing import Any

from .options import option_defaults, option_of
from .patterns import layer_pattern
from .plan import Plan

MEGATRON_TOPK = 2  # its default of --moe-router-topk
# Options that add or replace weights in ways that are not counted here.
UNCOUNTED = (
    "experimental_attention_variant",
    "heterogeneous_layers_config_path",
    "heterogeneous_layers_config_encoded_json",
    "linear_attention_freq",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Parameters of one transformer layer. `mlp` is everything behind the attention that every token passes: the dense
    MLP, or the router and the shared experts. `experts` are all routed experts together, of which a token visits
    `visited`.
    """

    norms: int
    attention: int
    mlp: int
    experts: int
    visited: int

    @property
    def total(self) -> int:
        return self.norms + self.attention + self.mlp + self.experts

    @property
    def active(self) -> int:
        return self.norms + self.attention + self.mlp + self.visited


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameters of a whole model. `output` is 0 where the output layer shares the embedding's weights.

    `uncounted` names the raw options whose weights are missing from the figures.
    """

    embedding: int
    layers: tuple[Layer, ...]
    final_norm: int
    output: int
    uncounted: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.embedding + sum(layer.total for layer in self.layers) + self.final_norm + self.output

    @property
    def active(self) -> int:
        """What one token passes through: all but the experts that it does not visit. Embeddings count whole."""
        return self.embedding + sum(layer.active for layer in self.layers) + self.final_norm + self.output


def parameters(plan: Plan) -> Parameters:
    """The parameters of the plan's model, layer by layer."""
    model = _Model(plan)
    hidden, vocab = model.hidden, plan["model.vocab_size"]
    positions = plan["model.max_position_embeddings"] if model.learns_positions else 0
    return Parameters(
        embedding=(vocab + positions) * hidden,
        layers=tuple(model.layer(has_experts) for has_experts in sparse_layers(plan)),
        final_norm=model.norm(hidden),
        output=vocab * hidden if plan["model.untie_embeddings_and_output_weights"] else 0,
        uncounted=tuple(name for name in UNCOUNTED if model.option(name)),
    )


def raw_option(plan: Plan, dest: str) -> Any:
    """What `megatron.args` says of the option that Megatron calls `dest`, or Megatron's default."""
    target = plan["megatron.target"]
    for name, value in plan["megatron.args"].items():
        if option_of(target, name) == dest:
            return value
    return option_defaults(target).get(dest)


def sparse_layers(plan: Plan) -> tuple[bool, ...]:
    """Of each layer, whether its MLP is a mixture of experts (`--moe-layer-freq`)."""
    layers: int = plan["model.num_layers"]
    if plan["model.num_experts"] is None:
        return (False,) * layers
    frequency = layer_pattern(raw_option(plan, "moe_layer_freq"))
    if isinstance(frequency, int):
        return tuple(layer % frequency == 0 for layer in range(layers))
    return tuple(map(bool, frequency))


class _Model:
    """The sizes of a plan's model, and what they add up to."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.hidden: int = plan["model.hidden_size"]
        self.heads: int = plan["model.num_attention_heads"]
        self.biases: bool = plan["model.add_bias_linear"]
        self.learns_positions = plan["model.position_embedding_type"] == "learned_absolute"
        self.is_gated = plan["model.swiglu"] or bool(self.option("quick_geglu"))

    def option(self, dest: str) -> Any:
        return raw_option(self.plan, dest)

    def linear(self, inputs: int, outputs: int, *, bias: bool | None = None) -> int:
        return inputs * outputs + (outputs if (self.biases if bias is None else bias) else 0)

    def norm(self, width: int) -> int:
        return width if self.plan["model.normalization"] == "RMSNorm" else 2 * width

    def layer(self, has_experts: bool) -> Layer:
        norms, attention = 2 * self.norm(self.hidden), self.attention()
        if not has_experts:
            mlp = self.mlp(self.hidden, self.plan["model.ffn_hidden_size"])
            return Layer(norms=norms, attention=attention, mlp=mlp, experts=0, visited=0)
        count = self.plan["model.num_experts"]
        latent = self.option("moe_latent_size")
        width = self.plan["model.moe_ffn_hidden_size"] or self.plan["model.ffn_hidden_size"]
        expert = self.mlp(latent or self.hidden, width)
        mlp = self.linear(self.hidden, count)  # the router
        if latent:
            mlp += self.linear(self.hidden, latent) + self.linear(latent, self.hidden)
        if shared := self.option("moe_shared_expert_intermediate_size"):
            mlp += self.mlp(self.hidden, shared) + (self.hidden if self.option("moe_shared_expert_gate") else 0)
        topk = self.plan["model.moe_router_topk"] or MEGATRON_TOPK
        return Layer(norms=norms, attention=attention, mlp=mlp, experts=count * expert, visited=topk * expert)

    def mlp(self, hidden: int, width: int) -> int:
        return self.linear(hidden, 2 * width if self.is_gated else width) + self.linear(width, hidden)

    def attention(self) -> int:
        sinks = self.heads if self.option("softmax_type") == "learnable" else 0
        return sinks + (self.latent_attention() if self.option("multi_latent_attention") else self.grouped_attention())

    def grouped_attention(self) -> int:
        head, groups = self.plan["model.kv_channels"], self.plan["model.num_query_groups"]
        queries = self.heads * head * (2 if self.option("attention_output_gate") else 1)
        projections = self.linear(
            self.hidden, queries + 2 * groups * head, bias=self.biases or self.plan["model.add_qkv_bias"]
        ) + self.linear(self.heads * head, self.hidden)
        return projections + (2 * self.norm(head) if self.plan["model.qk_layernorm"] else 0)

    def latent_attention(self) -> int:
        """Multi-latent attention: keys and values, and with `--q-lora-rank` queries too, go through a narrow layer."""
        rotated: int = self.option("qk_pos_emb_head_dim")
        plain, value = self.option("qk_head_dim"), self.option("v_head_dim")
        queries = self.heads * (plain + rotated)
        rank, query_rank = self.option("kv_lora_rank"), self.option("q_lora_rank")
        count: int = self.hidden * (rank + rotated) + rank * self.heads * (plain + value)
        count += self.hidden * query_rank + query_rank * queries if query_rank else self.hidden * queries
        if self.plan["model.qk_layernorm"]:
            count += self.norm(rank) + (self.norm(query_rank) if query_rank else 0)
        return count + self.linear(self.heads * value, self.hidden)
