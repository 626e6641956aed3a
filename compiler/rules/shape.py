"""The model's sizes among themselves and against the parallel layout."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

ETP = "parallel.expert_tensor_parallel_size"
TP = "parallel.tensor_model_parallel_size"
MEGATRON_TOPK = 2  # its default of --moe-router-topk
HEADS, GROUPS = "model.num_attention_heads", "model.num_query_groups"


def head_width(context: Context) -> Iterator[Diagnostic]:
    hidden, heads = context["model.hidden_size"], context[HEADS]
    if not context.stated("model.kv_channels") and hidden % heads:
        yield context.error(
            "SFTC401",
            "model.hidden_size",
            f"hidden_size ({hidden}) is not a multiple of num_attention_heads ({heads})",
            also=(HEADS,),
            help="set `model.kv_channels` if the heads do not add up to the hidden size",
        )


def query_groups(context: Context) -> Iterator[Diagnostic]:
    heads, groups = context[HEADS], context[GROUPS]
    if heads % groups:
        message = f"num_attention_heads ({heads}) is not a multiple of num_query_groups ({groups})"
        yield context.error("SFTC402", GROUPS, message, also=(HEADS,))


def tensor_parallel_sizes(context: Context) -> Iterator[Diagnostic]:
    tp = context[TP]
    for key in (HEADS, GROUPS, "model.ffn_hidden_size", "model.hidden_size"):
        size = context[key]
        # Fewer groups than ranks are fine for Megatron if each group is repeated on equally many of them.
        if size % tp and not (key == GROUPS and tp % size == 0):
            name = key.removeprefix("model.")
            message = f"{name} ({size}) is not a multiple of tensor_model_parallel_size ({tp})"
            yield context.error("SFTC403", key if context.stated(key) else TP, message, also=(TP,))


def pipeline_layers(context: Context) -> Iterator[Diagnostic]:
    layers = context["model.num_layers"]
    pp, virtual = context["parallel.pipeline_model_parallel_size"], "parallel.num_virtual_stages_per_pipeline_rank"
    stages = context[virtual] or 1
    if layers % (pp * stages):
        arithmetic = f"PP({pp})" + (f" * virtual stages({stages})" if stages > 1 else "")
        message = f"num_layers ({layers}) is not a multiple of {arithmetic} = {pp * stages}"
        yield context.error(
            "SFTC404", "model.num_layers", message, also=("parallel.pipeline_model_parallel_size", virtual)
        )


def experts(context: Context) -> Iterator[Diagnostic]:
    count, topk = context["model.num_experts"], context["model.moe_router_topk"]
    ep_key = "parallel.expert_model_parallel_size"
    ep, tp = context[ep_key], context[TP]
    if count is None:
        for key in ("model.moe_router_topk", "model.moe_ffn_hidden_size", "model.moe_aux_loss_coeff"):
            if context.stated(key):
                yield context.error(
                    "SFTC405", key, f"`{key}` needs a mixture of experts", help="set `model.num_experts`"
                )
        for key in (ep_key, ETP):
            if (context[key] or 1) > 1:
                message = f"{key.removeprefix('parallel.')} ({context[key]}) splits experts, and the model has none"
                yield context.error("SFTC405", key, message, help="set `model.num_experts`, or leave it out")
        return
    if count % ep:
        message = f"num_experts ({count}) is not a multiple of expert_model_parallel_size ({ep})"
        yield context.error("SFTC405", "model.num_experts", message, also=(ep_key,))
    width_key = "model.moe_ffn_hidden_size" if context["model.moe_ffn_hidden_size"] else "model.ffn_hidden_size"
    if context[ETP] and context[width_key] % context[ETP]:
        name = width_key.removeprefix("model.")
        message = f"{name} ({context[width_key]}) is not a multiple of expert_tensor_parallel_size ({context[ETP]})"
        yield context.error("SFTC405", width_key, message, also=(ETP,))
    if (topk or MEGATRON_TOPK) > count:
        message = f"moe_router_topk ({topk or f'{MEGATRON_TOPK} if not set'}) is larger than num_experts ({count})"
        key = "model.moe_router_topk" if topk else "model.num_experts"
        yield context.error("SFTC405", key, message, also=("model.num_experts",) if topk else ())
    if tp > 1 and not context["parallel.sequence_parallel"]:
        message = (
            f"a mixture of experts with tensor_model_parallel_size ({tp}) > 1 trains with sequence parallelism only"
        )
        yield context.error(
            "SFTC405", TP, message, also=("model.num_experts",), help="add `sequence_parallel: true` under `parallel`"
        )


def positions(context: Context) -> Iterator[Diagnostic]:
    longest, length = context["model.max_position_embeddings"], context["train.seq_length"]
    if length > longest:
        message = f"seq_length ({length}) is longer than max_position_embeddings ({longest})"
        yield context.error("SFTC406", "train.seq_length", message, also=("model.max_position_embeddings",))


RULES = (head_width, query_groups, tensor_parallel_sizes, pipeline_layers, experts, positions)
