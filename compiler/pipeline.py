"""Which layers each pipeline stage holds, evenly or as `megatron.args` deals them out, by Megatron's own arithmetic."""

import re
from itertools import accumulate

from .parameters import raw_option
from .plan import Plan

# `--pipeline-model-parallel-layout`: stages parted by `|`, a letter for each layer, `(...)*n` and `x*n` for repetition.
REPEATED = (re.compile(r"\(([^)]+)\)\*(\d+)"), re.compile(r"(.)\*(\d+)"))
MOST = 1000  # repetitions that are followed
OPTIONS = (
    "account_for_embedding_in_pipeline_split",
    "account_for_loss_in_pipeline_split",
    "decoder_first_pipeline_num_layers",
    "decoder_last_pipeline_num_layers",
    "pipeline_model_parallel_layout",
)
DECODER, OTHERS = "t", "ELm|"  # the embedding, the loss, layers that predict several tokens; the end of a stage


def stage_layers(plan: Plan) -> list[list[range]] | None:
    """Of each stage its chunks, one or as many as it has virtual stages, as the numbers of their layers, from 0; None
    where Megatron refuses the layout, or it cannot be followed.

    Layers are numbered chunk after chunk, and chunk c of stage r is the (c * PP + r)-th of all.
    """
    pp = plan["parallel.pipeline_model_parallel_size"]
    counts = _counts(plan, pp)
    if not counts or len(counts) % pp or min(counts) < 0 or sum(counts) != plan["model.num_layers"]:
        return None
    starts = accumulate(counts, initial=0)
    chunks = [range(start, start + count) for start, count in zip(starts, counts, strict=False)]
    return [chunks[stage::pp] for stage in range(pp)]


def uneven(plan: Plan) -> list[str]:
    """The options of `megatron.args` by which layers are dealt out otherwise than evenly."""
    return [name for name in OPTIONS if raw_option(plan, name)]


def _counts(plan: Plan, pp: int) -> list[int] | None:
    """How many layers each chunk has, in their order."""
    layout = raw_option(plan, "pipeline_model_parallel_layout")
    if layout is not None:
        return _of_layout(layout) if isinstance(layout, str) else None
    layers, vpp = plan["model.num_layers"], plan["parallel.num_virtual_stages_per_pipeline_rank"] or 1
    ends = [raw_option(plan, f"decoder_{end}_pipeline_num_layers") for end in ("first", "last")]
    counted = [bool(raw_option(plan, f"account_for_{what}_in_pipeline_split")) for what in ("embedding", "loss")]
    if ends == [None, None]:
        whole, chunks = layers + sum(counted), pp * vpp
        if whole % chunks:
            return None
        counts = [whole // chunks] * chunks
        counts[0] -= counted[0]
        counts[-1] -= counted[1]
        return counts
    stated = [count for count in ends if count is not None]
    if any(counted) or pp == 1 or not all(isinstance(count, int) for count in stated):
        return None
    rest, between = layers - sum(stated), pp - len(stated)
    if between and rest % between:
        return None
    counts = [rest // between if between else 0] * pp
    for at, count in ((0, ends[0]), (-1, ends[1])):
        counts[at] = counts[at] if count is None else count
    return None if any(count % vpp for count in counts) else [count // vpp for count in counts] * vpp


def _of_layout(text: str) -> list[int] | None:
    text = text.replace(",", "")
    for pattern in REPEATED:
        if any(int(found[2]) > MOST for found in pattern.finditer(text)):
            return None
        text = pattern.sub(lambda found: found[1] * int(found[2]), text)
    return None if set(text) - {*DECODER, *OTHERS} else [stage.count(DECODER) for stage in text.split("|")]
