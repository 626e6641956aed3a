"""Which linears of a plan's model get an adapter, by Megatron's names, and how many parameters the adapters have."""

from collections.abc import Iterator
from dataclasses import dataclass

from .parameters import raw_option, sparse_layers
from .plan import Plan
from .reach import reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A matrix of `outputs` by `inputs` in `layer`, from 0; `experts` of them where one module holds those of all.

    Tensor parallelism divides the outputs of the linears that a layer begins with, and the inputs of the others.
    """

    name: str
    layer: int
    inputs: int
    outputs: int
    is_expert: bool = False
    experts: int = 1

    def adapter(self, rank: int, ranks: int = 1) -> int:
        """Parameters of A and B that one of `ranks` holds, which share the tensors."""
        divided, whole = self.inputs, self.outputs
        if self.name.endswith(("linear_qkv", "linear_fc1")):
            divided, whole = whole, divided
        return rank * (divided // ranks + whole) * self.experts


def linears(plan: Plan) -> Iterator[Linear]:
    """Every linear that can have an adapter, layer by layer."""
    for layer, has_experts in enumerate(sparse_layers(plan)):
        yield from _attention(plan, layer)
        yield from _experts(plan, layer) if has_experts else _mlp(plan, layer, "mlp", plan["model.ffn_hidden_size"])


def adapted(plan: Plan) -> tuple[Linear, ...]:
    """Those that `lora.targets` mean; none in a plan that trains all weights."""
    if plan["lora.rank"] is None:
        return ()
    return tuple(linear for linear in linears(plan) if is_target(linear.name, plan["lora.targets"]))


def is_target(name: str, targets: list[str]) -> bool:
    """By the runtime's own rule."""
    return bool(reach("lora.targets").is_target(name, targets))


def adapter_parameters(plan: Plan) -> int:
    """What is trained in the place of the model's weights."""
    return sum(linear.adapter(plan["lora.rank"]) for linear in adapted(plan))


def _attention(plan: Plan, layer: int) -> Iterator[Linear]:
    name, hidden = f"decoder.layers.{layer}.self_attention", plan["model.hidden_size"]
    heads, head = plan["model.num_attention_heads"], plan["model.kv_channels"]
    if raw_option(plan, "multi_latent_attention"):  # whose queries, keys and values come from linears of other names
        head = raw_option(plan, "v_head_dim")
    else:
        queries = heads * head * (2 if raw_option(plan, "attention_output_gate") else 1)
        keys = plan["model.num_query_groups"] * head
        yield Linear(name=f"{name}.linear_qkv", layer=layer, inputs=hidden, outputs=queries + 2 * keys)
    yield Linear(name=f"{name}.linear_proj", layer=layer, inputs=heads * head, outputs=hidden)


def _experts(plan: Plan, layer: int) -> Iterator[Linear]:
    width = plan["model.moe_ffn_hidden_size"] or plan["model.ffn_hidden_size"]
    count = plan["model.num_experts"]
    if plan["model.transformer_impl"] != "local" and raw_option(plan, "moe_grouped_gemm"):
        yield from _mlp(plan, layer, "mlp.experts", width, experts=count)
    else:
        for expert in range(count):
            yield from _mlp(plan, layer, f"mlp.experts.local_experts.{expert}", width, is_expert=True)
    if shared := raw_option(plan, "moe_shared_expert_intermediate_size"):
        yield from _mlp(plan, layer, "mlp.shared_experts", shared)


def _mlp(
    plan: Plan, layer: int, part: str, width: int, *, is_expert: bool = False, experts: int = 1
) -> Iterator[Linear]:
    is_expert = is_expert or experts > 1
    hidden: int = (raw_option(plan, "moe_latent_size") if is_expert else None) or plan["model.hidden_size"]
    gated = width * (2 if plan["model.swiglu"] or raw_option(plan, "quick_geglu") else 1)
    for name, inputs, outputs in (("linear_fc1", hidden, gated), ("linear_fc2", width, hidden)):
        yield Linear(
            name=f"decoder.layers.{layer}.{part}.{name}",
            layer=layer,
            inputs=inputs,
            outputs=outputs,
            is_expert=is_expert,
            experts=experts,
        )
