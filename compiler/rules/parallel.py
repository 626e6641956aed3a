"""The parallel layout against the world size and the sequence."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

TP, PP = "parallel.tensor_model_parallel_size", "parallel.pipeline_model_parallel_size"
CP, EP = "parallel.context_parallel_size", "parallel.expert_model_parallel_size"
ETP = "parallel.expert_tensor_parallel_size"


def world_size(context: Context) -> Iterator[Diagnostic]:
    world, nnodes, nproc = context["launch.world_size"], context["launch.nnodes"], context["launch.nproc_per_node"]
    tp, pp, cp, ep = (context[key] for key in (TP, PP, CP, EP))
    etp = context[ETP] or tp
    ranks = f"nnodes({nnodes}) * nproc_per_node({nproc}) = {world}"
    if world % (tp * pp * cp):
        message = f"{ranks} ranks are not a multiple of TP({tp}) * PP({pp}) * CP({cp}) = {tp * pp * cp}"
        yield context.error("SFTC411", "launch.nproc_per_node", message, also=("launch.nnodes", TP, PP, CP))
    elif context["model.num_experts"] is not None and world % (etp * pp * ep):
        name = "TP" if context[ETP] is None else "ETP"  # what the experts are split by
        message = f"{ranks} ranks are not a multiple of {name}({etp}) * PP({pp}) * EP({ep}) = {etp * pp * ep}"
        also = ("launch.nnodes", TP if context[ETP] is None else ETP, PP, EP)
        yield context.error("SFTC411", "launch.nproc_per_node", message, also=also)


def sequence_parallel(context: Context) -> Iterator[Diagnostic]:
    tp = context[TP]
    if not context["parallel.sequence_parallel"]:
        return
    if tp == 1:
        message = "sequence_parallel needs tensor_model_parallel_size > 1"
        yield context.error("SFTC412", "parallel.sequence_parallel", message, also=(TP,), help="leave it out")
    elif context["train.seq_length"] % (tp * context[CP]):
        length, cp = context["train.seq_length"], context[CP]
        message = f"with sequence_parallel, seq_length ({length}) must be a multiple of TP({tp}) * CP({cp}) = {tp * cp}"
        yield context.error("SFTC412", "train.seq_length", message, also=(TP, CP))


def context_slices(context: Context) -> Iterator[Diagnostic]:
    length, cp = context["train.seq_length"], context[CP]
    if cp > 1 and length % (2 * cp):
        message = f"seq_length ({length}) is not a multiple of 2 * CP({cp}) = {2 * cp}: each rank holds two slices"
        yield context.error("SFTC413", "train.seq_length", message, also=(CP,))


def context_means(context: Context) -> Iterator[Diagnostic]:
    cp, key = context[CP], "train.calculate_per_token_loss"
    if cp > 1 and not context[key]:
        message = f"with context_parallel_size ({cp}) each rank would average over the tokens of its own slices only"
        yield context.error("SFTC416", key, message, also=(CP,), help=f"write `{key.removeprefix('train.')}: true`")


def virtual_stages(context: Context) -> Iterator[Diagnostic]:
    key = "parallel.num_virtual_stages_per_pipeline_rank"
    if context[key] and context[PP] == 1:
        message = f"{key.removeprefix('parallel.')} needs pipeline_model_parallel_size > 1"
        yield context.error("SFTC414", key, message, also=(PP,), help="leave it out")
    elif context[key]:
        size, micro = context["train.global_batch_size"], context["train.micro_batch_size"]
        replicas, pp = context["parallel.data_parallel_size"], context[PP]
        count, rest = divmod(size, micro * replicas)
        if not rest and count % pp:
            message = (
                f"with virtual stages the micro-batches of an iteration must be a multiple of PP({pp}): "
                f"global_batch_size({size}) / (micro_batch_size({micro}) * DP({replicas})) = {count}"
            )
            yield context.error("SFTC414", "train.global_batch_size", message, also=(key, PP))


def distributed_optimizer(context: Context) -> Iterator[Diagnostic]:
    key, optimizer = "parallel.use_distributed_optimizer", context["train.optimizer"]
    if context[key] and optimizer != "adam":
        message = f"the distributed optimizer splits the states of adam, and train.optimizer is {optimizer}"
        yield context.error("SFTC415", key, message, also=("train.optimizer",), help="leave it out")


def overlap(context: Context) -> Iterator[Diagnostic]:
    if context["parallel.overlap_param_gather"]:
        for key in ("parallel.use_distributed_optimizer", "parallel.overlap_grad_reduce"):
            if not context[key]:
                message = f"overlap_param_gather needs `{key}: true`"
                yield context.error("SFTC415", "parallel.overlap_param_gather", message, also=(key,))


RULES = (world_size, sequence_parallel, context_slices, context_means, virtual_stages, distributed_optimizer, overlap)
