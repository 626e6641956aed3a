"""The model's sizes among themselves and against the parallel layout."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from ..options import option_table
from ..parameters import MEGATRON_TOPK, raw_option
from ..patterns import layer_pattern
from ..pipeline import stage_layers, uneven
from .context import Context

ETP = "parallel.expert_tensor_parallel_size"
TP, PP = "parallel.tensor_model_parallel_size", "parallel.pipeline_model_parallel_size"
HEADS, GROUPS = "model.num_attention_heads", "model.num_query_groups"
# By Megatron's name for the option: its value where the feature is not used, and what the feature is.
TRANSFORMER_ENGINE_ONLY = {
    "window_size": (None, "sliding windows"),
    "softmax_type": ("vanilla", "attention sinks"),
    "layernorm_zero_centered_gamma": (False, "norms around zero"),
}
PATTERNS = ("moe_layer_freq", "window_attn_skip_freq")


def head_width(context: Context) -> Iterator[Diagnostic]:
    hidden, heads = context["model.hidden_size"], context[HEADS]
    if context.derived("model.kv_channels") and hidden % heads:
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
    pp, virtual = context[PP], "parallel.num_virtual_stages_per_pipeline_rank"
    stages = context[virtual] or 1
    if dealt := uneven(context.plan):
        if stage_layers(context.plan) is None:
            options = " and ".join(f"`--{name.replace('_', '-')}`" for name in dealt)
            message = f"{options} cannot deal out num_layers ({layers}) over pipeline_model_parallel_size ({pp})"
            yield context.error("SFTC404", f"megatron.args.{dealt[0]}", message, also=("model.num_layers", PP, virtual))
    elif layers % (pp * stages):
        arithmetic = f"PP({pp})" + (f" * virtual stages({stages})" if stages > 1 else "")
        message = f"num_layers ({layers}) is not a multiple of {arithmetic} = {pp * stages}"
        key = "model.num_layers" if context.stated("model.num_layers") else PP
        help = "or deal them out with `decoder_first_pipeline_num_layers` under `megatron.args`"
        yield context.error("SFTC404", key, message, also=(PP, virtual) if key != PP else (virtual,), help=help)


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


def torch_native_layers(context: Context) -> Iterator[Diagnostic]:
    if context["model.transformer_impl"] != "local":
        return
    table = option_table(context["megatron.target"])
    for dest, (usual, what) in TRANSFORMER_ENGINE_ONLY.items():
        value = raw_option(context.plan, dest)
        if value not in (usual, None, False):
            name = next(text for text, option in table.items() if option.dest == dest)
            message = f"{what} (`{name}`) need Transformer Engine; torch-native layers have none"
            yield context.error(
                "SFTC407",
                "model.transformer_impl",
                message,
                also=("model.preset",),
                help="write `transformer_impl: transformer_engine` under `model`",
            )


def layer_patterns(context: Context) -> Iterator[Diagnostic]:
    layers = context["model.num_layers"]
    for dest in PATTERNS:
        text = raw_option(context.plan, dest)
        if text is None or (dest == "moe_layer_freq" and context["model.num_experts"] is None):
            continue
        try:
            pattern = layer_pattern(text)
        except ValueError:
            message = f"`{dest}: {text}` is neither a number nor lists of 0 and 1 with `+` and `*` between them"
            yield context.error("SFTC410", f"megatron.args.{dest}", message, help='for example `"([0]+[1]*26)"`')
            continue
        if isinstance(pattern, list) and len(pattern) != layers:
            message = f"the pattern `{dest}: {text}` has {len(pattern)} layers, and the model has {layers}"
            yield context.error("SFTC410", f"megatron.args.{dest}", message, also=("model.num_layers",))


RULES = (
    head_width,
    query_groups,
    tensor_parallel_sizes,
    pipeline_layers,
    experts,
    positions,
    torch_native_layers,
    layer_patterns,
)
