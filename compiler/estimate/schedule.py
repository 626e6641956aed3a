"""How many micro-batches wait for their backward pass at one time.

One forward, one backward (1F1B) and its interleaved form, as `get_pp_rank_microbatches` and `get_schedule_table` of
megatron/core/pipeline_parallel/schedules.py lay them out; Narayanan et al., "Efficient Large-Scale Language Model
Training on GPU Clusters Using Megatron-LM" (2021), section 2.2.
"""

from collections.abc import Iterator


def waiting(*, pp: int, vpp: int, rank: int, micro_batches: int) -> Iterator[tuple[int, ...]]:
    """For each moment of an iteration, how many micro-batches wait in each of the `vpp` chunks of stage `rank`."""
    if pp == 1:
        yield (1,)
        return
    # The steady state repeats itself after as many micro-batches as are in flight, which are fewer than 2 PP.
    order = _order(pp, vpp, min(micro_batches, 4 * pp))
    warmup = pp - rank - 1 if vpp == 1 else 2 * (pp - rank - 1) + (vpp - 1) * pp
    warmup = min(warmup, len(order))
    counts = [0] * vpp
    for step, chunk in enumerate(order):
        counts[chunk] += 1
        yield tuple(counts)
        if step >= warmup:
            counts[vpp - 1 - order[step - warmup]] -= 1


def _order(pp: int, vpp: int, micro_batches: int) -> list[int]:
    """The model chunk of each forward step: PP micro-batches through one chunk, then the same through the next."""
    order = []
    for first in range(0, micro_batches, pp):
        count = min(pp, micro_batches - first)
        order += [chunk for chunk in range(vpp) for _ in range(count)]
    return order
