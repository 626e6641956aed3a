"""The model of a rank, asked for logits: through its pipeline stages, with Megatron's own cache of keys and values.

Megatron's engines know neither virtual pipeline stages nor context parallelism, and each of their data-parallel ranks
stops by itself, which hangs ranks that share experts. So the stages are walked here; the layers, the cache
(StaticInferenceContext) and the sending between stages are Megatron's.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def whole_sequences(chunks: Sequence[Any]) -> Iterator[None]:
    """While entered, every rank works on whole sequences: sequence and context parallelism divide what has one token.

    The ranks of a context-parallel group then hold the same model, as data-parallel ones do.
    """
    changed: list[tuple[Any, str, Any]] = []

    def change(thing: Any, name: str, value: Any) -> None:
        changed.append((thing, name, getattr(thing, name)))
        setattr(thing, name, value)

    seen: set[int] = set()
    for module in (module for chunk in chunks for module in chunk.modules()):
        for name in ("sequence_parallel", "reduce_scatter_embeddings"):
            if getattr(module, name, None) is True:
                change(module, name, False)
        if getattr(module, "cp_group", None) is not None:
            change(module, "cp_group", None)
        config = getattr(module, "config", None)
        if config is not None and id(config) not in seen:
            seen.add(id(config))
            if getattr(config, "sequence_parallel", False):
                change(config, "sequence_parallel", False)
            if getattr(config, "context_parallel_size", 1) > 1:
                change(config, "context_parallel_size", 1)
    _forget_positions(chunks)
    try:
        yield
    finally:
        for thing, name, value in reversed(changed):
            setattr(thing, name, value)
        _forget_positions(chunks)


def _forget_positions(chunks: Sequence[Any]) -> None:
    """Rotary embeddings are kept by length alone, whether they were cut for a context-parallel rank or not."""
    for module in (module for chunk in chunks for module in chunk.modules()):
        if (forget := getattr(type(module).forward, "cache_clear", None)) is not None:
            forget()


class Cache:
    """Keys and values of `rows` sequences of up to `length` tokens, for the model chunks of this rank."""

    def __init__(self, chunks: int, rows: int, length: int, *, every_logit: bool) -> None:
        from megatron.core.inference.contexts import StaticInferenceContext

        self.contexts = [StaticInferenceContext(rows, length) for _ in range(chunks)]
        for context in self.contexts:
            context.config.materialize_only_last_token_logits = not every_logit
        self.filled = 0

    def advance(self, tokens: int) -> None:
        self.filled += tokens
        for context in self.contexts:
            context.sequence_len_offset = self.filled
            context.enable_decode_mode()


class Asked:
    """A model that is asked: `chunks` are those of this rank, wrapped, in evaluation mode.

    All ranks of a model-parallel group ask at once, for the same tokens, within `whole_sequences`.
    """

    def __init__(self, chunks: Sequence[Any]) -> None:
        from megatron.core import mpu
        from megatron.core.utils import get_model_config, unwrap_model

        self._chunks = list(chunks)
        self._bare = unwrap_model(self._chunks)
        config = get_model_config(self._chunks[0])
        self._hidden = config.hidden_size
        self._dtype = config.pipeline_dtype or config.params_dtype
        self._stage, self._stages = mpu.get_pipeline_model_parallel_rank(), mpu.get_pipeline_model_parallel_world_size()
        # How many copies of the model there are, and which of them this rank is a part of
        self.copies = mpu.get_data_parallel_world_size(with_context_parallel=True)
        self.copy = mpu.get_data_parallel_rank(with_context_parallel=True)
        self.copies_group = mpu.get_data_parallel_group(with_context_parallel=True)
        self.device = torch.cuda.current_device()

    @property
    def knows(self) -> bool:
        """Whether this rank is in the last stage, which makes the logits."""
        return bool(self._stage == self._stages - 1)

    def cache(self, rows: int, length: int, *, every_logit: bool = False) -> Cache:
        """An empty one. The logits are those of the last token that is asked about, or of all of them."""
        return Cache(len(self._chunks), rows, length, every_logit=every_logit)

    def logits(self, tokens: torch.Tensor, cache: Cache) -> torch.Tensor | None:
        """The logits of `tokens` [b, s], which follow on those in the cache: [b, 1 or s, padded vocabulary] in the last
        stage, and None in the others.
        """
        rows, length = tokens.shape
        positions = torch.arange(cache.filled, cache.filled + length, device=tokens.device).expand(rows, length)
        output = None
        with _inference():
            for number, chunk in enumerate(self._chunks):
                if self._stage or number:
                    self._bare[number].set_input_tensor(self._receive(length, rows))
                output = chunk(
                    tokens,
                    positions,
                    None,
                    inference_context=cache.contexts[number],
                    runtime_gather_output=True,
                )
                if not self.knows or number < len(self._chunks) - 1:
                    self._send(output)
        cache.advance(length)
        return output if self.knows else None

    def _receive(self, length: int, rows: int) -> torch.Tensor:
        from megatron.core.inference.communication_utils import recv_from_prev_pipeline_rank_

        hidden = torch.empty(length, rows, self._hidden, dtype=self._dtype, device=self.device)
        recv_from_prev_pipeline_rank_(hidden)
        return hidden

    def _send(self, hidden: torch.Tensor) -> None:
        from megatron.core.inference.communication_utils import send_to_next_pipeline_rank

        send_to_next_pipeline_rank(hidden.to(self._dtype).contiguous())

    def shared(self, tokens: torch.Tensor) -> torch.Tensor:
        """`tokens` as the first tensor-parallel rank of the last stage has them, on every rank of this copy."""
        from megatron.core import mpu

        if self._stages > 1:
            source, group = mpu.get_pipeline_model_parallel_last_rank(), mpu.get_pipeline_model_parallel_group()
            torch.distributed.broadcast(tokens, source, group=group)
        if mpu.get_tensor_model_parallel_world_size() > 1:
            # Each of them has chosen by the same logits; sums of a GPU may differ in their last bits all the same.
            source, group = mpu.get_tensor_model_parallel_src_rank(), mpu.get_tensor_model_parallel_group()
            torch.distributed.broadcast(tokens, source, group=group)
        return tokens

    def all_done(self, done: bool) -> bool:
        """Whether every rank is done. They go on until then, because ranks that share experts need each other."""
        flag = torch.tensor([int(done)], device=self.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MIN)
        return bool(flag.item())

    def gathered[T](self, own: T) -> list[T]:
        """`own` of every copy of the model."""
        found: list[Any] = [None] * self.copies
        torch.distributed.all_gather_object(found, own, group=self.copies_group)
        return found


def _inference() -> AbstractContextManager[Any]:
    """From 0.18 on Megatron has to be told that nothing is trained; before, the cache says it."""
    try:
        from megatron.core.inference.utils import InferenceMode
    except ImportError:
        return nullcontext()
    mode: AbstractContextManager[Any] = InferenceMode.active()
    return mode
