"""The symbols of the formulas, taken from a plan. Knows which raw options of Megatron change a size, and which do so in
ways that are not followed here.
"""

from dataclasses import dataclass
from typing import Any

from ..parameters import MEGATRON_TOPK, raw_option
from ..pipeline import stage_layers
from ..plan import Plan

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
# Options of `megatron.args` that change what a rank holds and are not followed: named beside the figures.
NOT_FOLLOWED = (
    "cpu_offloading_num_layers",
    "cuda_graph_impl",
    "distribute_saved_activations",
    "fine_grained_activation_offloading",
    "fp4_format",
    "fp8_format",
    "fp8_param_gather",
    "optimizer_cpu_offload",
    "overlap_moe_expert_parallel_comm",
    "recompute_modules",
    "use_megatron_fsdp",
    "use_torch_fsdp2",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """One rank's share of the work. Widths are in elements and already divided by tensor parallelism.

    tokens: of one micro-batch on this rank, b * s / CP; narrow_tokens: the same where sequence parallelism divides them
    by TP again; length: s / CP; whole_length: s; rows: routed copies of tokens, with experts evenly visited.
    element: bytes of a weight and of an activation; gradient, master, moments: bytes for each parameter.
    """

    layers: int
    hidden: int
    queries: int
    keys: int
    values: int
    heads: int
    head: int
    latent: int
    rotated: int
    ffn: int
    expert_ffn: int
    shared_ffn: int
    vocab: int
    tokens: int
    narrow_tokens: int
    length: int
    whole_length: int
    micro_batch: int
    rows: int
    top_k: int
    micro_batches: int
    tp: int
    pp: int
    vpp: int
    cp: int
    dp: int
    ep: int
    etp: int
    expert_dp: int
    world: int
    element: int
    gradient: int
    master: int
    moments: int
    is_sharded: bool
    on_cpu: bool
    is_native: bool
    is_fused: bool
    is_gated: bool
    is_packed: bool
    is_rms: bool
    fused_loss: bool
    fused_adam: bool
    trains_head: bool
    copies_queries: bool
    has_qk_norm: bool
    dropout: bool
    recompute: str | None
    recompute_method: str | None
    recompute_layers: int
    not_followed: tuple[str, ...]


def sizes_of(plan: Plan) -> Sizes:
    """The symbols of a plan whose layout satisfies the rules."""

    def raw(dest: str) -> Any:
        return raw_option(plan, dest)

    tp, pp, cp = (plan[f"parallel.{name}_parallel_size"] for name in ("tensor_model", "pipeline_model", "context"))
    ep, world = plan["parallel.expert_model_parallel_size"], plan["launch.world_size"]
    etp = raw("expert_tensor_parallel_size") or tp
    heads, groups, head = (plan[f"model.{name}"] for name in ("num_attention_heads", "num_query_groups", "kv_channels"))
    length, micro = plan["train.seq_length"] // cp, plan["train.micro_batch_size"]
    tokens = length * micro
    narrow = tokens // tp if plan["parallel.sequence_parallel"] else tokens
    dp = plan["parallel.data_parallel_size"]
    latent = bool(raw("multi_latent_attention"))
    queries, keys, values = heads * head, groups * head, groups * head
    if latent:
        queries = keys = heads * (raw("qk_head_dim") + raw("qk_pos_emb_head_dim"))
        values = heads * raw("v_head_dim")
    topk = (plan["model.moe_router_topk"] or MEGATRON_TOPK) if plan["model.num_experts"] else 0
    on_cpu = plan["launch.device"] == "cpu"
    fusion = "no_bias_swiglu_fusion" if plan["model.swiglu"] else "no_bias_gelu_fusion"
    precision = plan["train.precision"]
    per = plan["model.make_vocab_size_divisible_by"] * tp
    return Sizes(
        layers=plan["model.num_layers"],
        hidden=plan["model.hidden_size"],
        queries=queries // tp,
        keys=max(keys // tp, 0 if latent else head),
        values=max(values // tp, 0 if latent else head),
        heads=heads // tp,
        head=head,
        latent=(raw("q_lora_rank") or 0) + raw("kv_lora_rank") + raw("qk_pos_emb_head_dim") if latent else 0,
        rotated=int(head * plan["model.rotary_percent"]) if plan["model.position_embedding_type"] == "rope" else 0,
        ffn=plan["model.ffn_hidden_size"] // tp,
        expert_ffn=(plan["model.moe_ffn_hidden_size"] or plan["model.ffn_hidden_size"]) // etp,
        shared_ffn=(raw("moe_shared_expert_intermediate_size") or 0) // tp,
        vocab=-(-plan["model.vocab_size"] // per) * per // tp,
        tokens=tokens,
        narrow_tokens=narrow,
        length=length,
        whole_length=plan["train.seq_length"],
        micro_batch=micro,
        # the ranks of an expert group bring narrow * etp * ep tokens together and split their visits over ep
        rows=narrow * etp * topk,
        top_k=topk,
        micro_batches=max(1, plan["train.global_batch_size"] // (micro * dp)),
        tp=tp,
        pp=pp,
        vpp=len((stage_layers(plan) or [[range(0)]])[0]),
        cp=cp,
        dp=dp,
        ep=ep,
        etp=etp,
        expert_dp=max(1, world // (etp * ep * pp)),
        world=world,
        element=BYTES[precision],
        gradient=_gradient_bytes(precision, raw),
        master=0 if precision == "fp32" else BYTES[raw("main_params_dtype") or "fp32"],
        moments=4
        if plan["train.optimizer"] == "sgd"
        else BYTES[raw("exp_avg_dtype") or "fp32"] + BYTES[raw("exp_avg_sq_dtype") or "fp32"],
        is_sharded=plan["parallel.use_distributed_optimizer"],
        on_cpu=on_cpu,
        is_native=plan["model.transformer_impl"] == "local",
        is_fused=not on_cpu and fusion not in _stated(plan),
        is_gated=plan["model.swiglu"] or bool(raw("quick_geglu")),
        is_packed=plan["data.packing"],
        is_rms=plan["model.normalization"] == "RMSNorm",
        fused_loss=plan["train.fused_linear_cross_entropy"],
        fused_adam=plan["train.fused_adam"],
        trains_head=plan["lora.rank"] is None,
        copies_queries=heads > groups and not latent,
        has_qk_norm=plan["model.qk_layernorm"],
        dropout=plan["model.hidden_dropout"] > 0,
        recompute=plan["train.recompute_granularity"],
        recompute_method=plan["train.recompute_method"],
        recompute_layers=plan["train.recompute_num_layers"] or 1,
        not_followed=tuple(name for name in _stated(plan) if name in NOT_FOLLOWED),
    )


def _gradient_bytes(precision: str, raw: Any) -> int:
    """Bytes of a gradient in DDP's buffer: bf16 reduces in fp32 unless told otherwise, fp16 the other way round.

    Source: `validate_args` of megatron/training/arguments.py.
    """
    if precision == "bf16":
        return 2 if raw("grad_reduce_in_bf16") or raw("main_grads_dtype") == "bf16" else 4
    return 4 if precision == "fp32" or raw("accumulate_allreduce_grads_in_fp32") else 2


def _stated(plan: Plan) -> list[str]:
    return sorted(name.replace("-", "_") for name, value in plan["megatron.args"].items() if value is not False)
