"""Adapters: whether their targets are there, whether they are narrow, and what they do not go together with."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from ..lora import adapted, is_target, linears
from ..options import option_defaults
from ..parameters import UNCOUNTED, raw_option
from ..pipeline import stage_layers
from ..suggest import closest
from .context import Context

RANK, TARGETS, PP = "lora.rank", "lora.targets", "parallel.pipeline_model_parallel_size"
# Names of the same linears in Hugging Face models, whose queries, keys and values, and gate and up, are apart.
HUGGING_FACE = {
    "linear_qkv": ("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "linear_q", "linear_k", "linear_v"),
    "linear_proj": ("o_proj", "out_proj"),
    "linear_fc1": ("gate_proj", "up_proj", "gate_up_proj", "w1", "w3", "linear_fc1_gate", "linear_fc1_up"),
    "linear_fc2": ("down_proj", "w2"),
}
# Options of Megatron under which weights are not where adapters look for them, or change although they are frozen.
REFUSED = (
    "cuda_graph_impl",
    "delay_wgrad_compute",
    "enable_cuda_graph",
    "fp8_param_gather",
    "init_model_with_meta_device",
    "moe_shared_expert_overlap",
    "overlap_moe_expert_parallel_comm",
    "qk_clip",
    "use_megatron_fsdp",
    "use_torch_fsdp2",
    "use_transformer_engine_op_fuser",
    *UNCOUNTED,
)


def targets(context: Context) -> Iterator[Diagnostic]:
    if context[RANK] is None:
        return
    names = [linear.name for linear in linears(context.plan)]
    is_mine = context.stated(TARGETS)
    for number, target in enumerate(context[TARGETS]):
        if not is_mine or any(is_target(name, [target]) for name in names):
            continue
        message = f"`{target}` matches no linear of this model"
        yield context.error("SFTC445", f"{TARGETS}.{number}", message, help=_meant(target, names))


def _meant(target: str, names: list[str]) -> str:
    """The name to write, if there is one; else what there is."""
    last = target.rpartition(".")[2]
    if name := next((name for name, others in HUGGING_FACE.items() if last in others), None):
        return f"in Megatron it is part of `{name}`"
    if target in ("all", "all-linear"):
        return "leave `targets` out for all linears of the layers"
    kinds = sorted({name.rpartition(".")[2] for name in names})
    if last not in kinds and (near := closest(last, kinds)):
        return f"did you mean `{target.removesuffix(last)}{near}`?"
    shown = ", ".join(f"`{kind}`" for kind in kinds)
    return f"there are {shown}, from `{names[0]}` to `{names[-1]}`"


def narrow(context: Context) -> Iterator[Diagnostic]:
    rank = context[RANK]
    widest = min(adapted(context.plan), key=lambda linear: min(linear.inputs, linear.outputs), default=None)
    if widest is not None and rank > (most := min(widest.inputs, widest.outputs)):
        message = (
            f"the rank ({rank}) is larger than the smaller side of `{widest.name}` ({widest.outputs} x {widest.inputs})"
        )
        yield context.error(
            "SFTC446", RANK, message, help=f"an adapter is narrower than its matrix: write {most} or less"
        )


def stages(context: Context) -> Iterator[Diagnostic]:
    layers = {linear.layer for linear in adapted(context.plan)}
    if not layers or not context["parallel.use_distributed_optimizer"]:
        return
    held = [[layer for chunk in stage for layer in chunk] for stage in stage_layers(context.plan) or []]
    if empty := [stage for stage, numbers in enumerate(held) if layers.isdisjoint(numbers)]:
        stage = f"pipeline stage {empty[0]} ({_numbered(held[empty[0]])})"
        remedy = "let `lora.targets` match a layer of each stage" if all(held) else "give each stage a layer"
        yield context.error(
            "SFTC447",
            TARGETS,
            f"{stage} has no adapters, and the distributed optimizer cannot save a stage of none",
            also=(PP, "parallel.use_distributed_optimizer"),
            help=f"leave out `parallel.use_distributed_optimizer`, or {remedy}",
        )


def _numbered(layers: list[int]) -> str:
    if len(layers) < 2:
        return f"layer {layers[0]}" if layers else "no layer"
    is_row = layers[-1] - layers[0] == len(layers) - 1
    return f"layers {layers[0]} to {layers[-1]}" if is_row else "layers " + ", ".join(map(str, layers))


def company(context: Context) -> Iterator[Diagnostic]:
    if context[RANK] is None:
        return
    if context["model.init"] == "random":
        message = "adapters beside random weights: these are frozen and never learn"
        help = "set `model.load`, or leave out `lora`"
        yield context.error("SFTC447", "model.init", message, also=(RANK,), help=help)
    if context["model.load"] is not None and not context["checkpoint.finetune"]:
        message = "`checkpoint.finetune: false` continues a run of all weights, and adapters begin a new one"
        help = "leave the line out; a launch of the same build goes on from its own checkpoints"
        yield context.error("SFTC447", "checkpoint.finetune", message, also=(RANK,), help=help)
    usual = option_defaults(context["megatron.target"])
    for dest in REFUSED:
        if raw_option(context.plan, dest) not in (usual.get(dest), None, False, 0):
            message = f"`--{dest.replace('_', '-')}` does not go together with `lora`"
            yield context.error("SFTC447", f"megatron.args.{dest}", message, also=(RANK,))
    if context["model.transformer_impl"] == "local" and raw_option(context.plan, "moe_grouped_gemm"):
        message = "torch-native layers compute no experts in groups, which `--moe-grouped-gemm` asks for"
        yield context.error("SFTC447", "megatron.args.moe_grouped_gemm", message, help="leave the line out")
    if raw_option(context.plan, "moe_router_enable_expert_bias") and raw_option(
        context.plan, "moe_router_bias_update_rate"
    ):
        message = "`--moe-router-enable-expert-bias` changes the router's biases, and with `lora` they are frozen"
        yield context.error(
            "SFTC447",
            "megatron.args.moe_router_enable_expert_bias",
            message,
            help="write `moe_router_bias_update_rate: 0` under `megatron.args`",
        )


RULES = (targets, narrow, stages, company)
