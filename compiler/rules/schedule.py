"""Batch sizes, the learning-rate schedule, recomputation and how the loss is computed."""

from collections.abc import Iterator
from typing import Any

from ..diagnostics import Diagnostic
from ..options import option_defaults
from ..parameters import raw_option
from .context import Context

ITERS, EPOCHS = "train.train_iters", "train.epochs"
FUSED = "train.fused_linear_cross_entropy"
# Options of Megatron that look at the logits between output layer and loss, or move the weights away in between.
LOOKS_AT_LOGITS = (
    "cross_entropy_loss_fusion",
    "cuda_graph_impl",
    "defer_embedding_wgrad_compute",
    "enable_cuda_graph",
    "fp16_lm_cross_entropy",
    "use_megatron_fsdp",
    "use_mup",
    "use_torch_fsdp2",
)
FUSED_ADAM, OPTIMIZER, LAYERS = "train.fused_adam", "train.optimizer", "model.transformer_impl"
# Options of Megatron that bring an optimizer of their own, or want another AdamW than torch's.
OTHER_STEPS = ("optimizer_cpu_offload", "use_megatron_fsdp", "use_precision_aware_optimizer", "use_torch_fsdp2")
COMPILED, TP, CP = "train.torch_compile", "parallel.tensor_model_parallel_size", "parallel.context_parallel_size"
# What cuts a layer into pieces where the compiler would make one of it: with the values at which it does not.
CUTS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    (LAYERS, ("local",)),
    (TP, (1,)),
    (CP, (1,)),
    ("model.num_experts", (None,)),
    ("model.attention_dropout", (0,)),
    ("lora.dropout", (None, 0)),
    ("train.gradient_accumulation_fusion", (False,)),
    ("train.recompute_granularity", (None, "full")),
)
# Options of Megatron that record a layer, move its tensors away, or make it of other parts.
OTHER_LAYERS = (
    "cpu_offloading",
    "cuda_graph_impl",
    "enable_cuda_graph",
    "external_cuda_graph",
    "fine_grained_activation_offloading",
    "multi_latent_attention",
    "use_megatron_fsdp",
    "use_torch_fsdp2",
)
WARMUP, SHARE, DECAY = "train.lr_warmup_iters", "train.lr_warmup_fraction", "train.lr_decay_iters"


def length(context: Context) -> Iterator[Diagnostic]:
    if context[ITERS] is not None and context[EPOCHS] is not None:
        message = "the length of the run is said twice"
        yield context.error("SFTC426", EPOCHS, message, also=(ITERS,), help=f"remove `{ITERS}` or `{EPOCHS}`")
    elif context[ITERS] is None and context[EPOCHS] is None:
        yield context.error("SFTC426", ITERS, "the run has no length", help=f"set `{ITERS}` or `{EPOCHS}`")
    if context[SHARE] is not None and context.stated(WARMUP):
        message = "the length of the warm-up is said twice"
        yield context.error("SFTC426", SHARE, message, also=(WARMUP,), help=f"remove `{WARMUP}` or `{SHARE}`")


def batch(context: Context) -> Iterator[Diagnostic]:
    size, micro = context["train.global_batch_size"], context["train.micro_batch_size"]
    replicas = context["parallel.data_parallel_size"]
    if size % (micro * replicas):
        message = (
            f"global_batch_size ({size}) is not a multiple of "
            f"micro_batch_size({micro}) * DP({replicas}) = {micro * replicas}"
        )
        yield context.error("SFTC421", "train.global_batch_size", message, also=("train.micro_batch_size",))


def warmup(context: Context) -> Iterator[Diagnostic]:
    iters, decay, run = context[WARMUP], context[DECAY], context[ITERS]
    if decay is None:
        return
    if run is not None and run <= iters < decay:
        message = f"the warm-up ({iters} iterations) does not end before the run does ({run})"
        yield context.error("SFTC422", WARMUP, message, also=(ITERS, DECAY), help=f"at most {run - 1}")
    elif iters >= decay:
        message = f"the warm-up ({iters} iterations) does not end before the schedule does ({decay})"
        yield context.error("SFTC422", WARMUP, message, also=(ITERS, DECAY), help=f"at most {decay - 1}")


def decay(context: Context) -> Iterator[Diagnostic]:
    end, iters = context[DECAY], context[ITERS]
    if end is None or iters is None:
        return
    if end < iters and context["train.lr_decay_style"] != "constant":
        message = f"the schedule ends at iteration {end} of {iters}: the rest trains at min_lr"
        yield context.warning("SFTC423", DECAY, message, also=(ITERS, "train.min_lr"))
    elif end > iters and context["train.lr_decay_style"] in ("linear", "cosine"):
        message = f"the run ends at iteration {iters} of the schedule's {end}: the learning rate does not reach min_lr"
        yield context.warning("SFTC423", DECAY, message, also=(ITERS, "train.min_lr"))


def final_rate(context: Context) -> Iterator[Diagnostic]:
    low, high = context["train.min_lr"], context["train.lr"]
    if low > high:
        message = f"min_lr ({low}) is larger than lr ({high})"
        yield context.error("SFTC424", "train.min_lr", message, also=("train.lr",))


def recompute(context: Context) -> Iterator[Diagnostic]:
    wants = context["train.recompute_granularity"] == "full"
    for key in ("train.recompute_method", "train.recompute_num_layers"):
        if wants and context[key] is None:
            message = f"recompute_granularity: full needs `{key}`"
            yield context.error("SFTC425", "train.recompute_granularity", message)
        elif not wants and context.stated(key):
            message = f"`{key}` is read only with recompute_granularity: full"
            yield context.error("SFTC425", key, message)


def fused_loss(context: Context) -> Iterator[Diagnostic]:
    if not context[FUSED]:
        return
    usual = option_defaults(context["megatron.target"])
    for dest in LOOKS_AT_LOGITS:
        if raw_option(context.plan, dest) not in (usual.get(dest), None, False, 0):
            message = f"`--{dest.replace('_', '-')}` does not go together with `fused_linear_cross_entropy`"
            yield context.error("SFTC427", f"megatron.args.{dest}", message, also=(FUSED,), help="leave one out")


def fused_adam(context: Context) -> Iterator[Diagnostic]:
    if not context[FUSED_ADAM]:
        return
    if context[OPTIMIZER] != "adam":
        message = f"`fused_adam` is a step of adam, and `{OPTIMIZER}` is {context[OPTIMIZER]}"
        yield context.error("SFTC428", FUSED_ADAM, message, also=(OPTIMIZER,), help="leave one out")
    if context[LAYERS] != "local":
        message = "the AdamW of Transformer Engine is fused already"
        yield context.error("SFTC428", FUSED_ADAM, message, also=(LAYERS,), help="leave `fused_adam` out")
    for dest in OTHER_STEPS:
        if raw_option(context.plan, dest):
            message = f"`--{dest.replace('_', '-')}` does not go together with `fused_adam`"
            yield context.error("SFTC428", f"megatron.args.{dest}", message, also=(FUSED_ADAM,), help="leave one out")


def compiled_layers(context: Context) -> Iterator[Diagnostic]:
    if not context[COMPILED]:
        return
    for key, usual in CUTS:
        if context[key] not in usual:
            message = f"layers are not compiled with `{key}` of {context[key]}"
            yield context.error("SFTC429", COMPILED, message, also=(key,), help="leave `torch_compile` out")
    usual_options = option_defaults(context["megatron.target"])
    for dest in OTHER_LAYERS:
        if raw_option(context.plan, dest) not in (usual_options.get(dest), None, False, 0, "none"):
            message = f"`--{dest.replace('_', '-')}` does not go together with `torch_compile`"
            yield context.error("SFTC429", f"megatron.args.{dest}", message, also=(COMPILED,), help="leave one out")


RULES = (length, batch, warmup, decay, final_rate, recompute, fused_loss, fused_adam, compiled_layers)
