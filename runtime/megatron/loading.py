"""Loading a checkpoint through Megatron: what it refuses, in words, and what it would train on without a word."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..checkpoint.tracker import TRACKER, find_checkpoint
from ..errors import UserError
from .parameters import slots
from .wrapping import wrap_function

SHOWN = 400  # characters of a library's own words


def watch_loading(training: ModuleType, args: Any) -> None:
    """Let a checkpoint that cannot be loaded, or holds weights that are no numbers, end the run with one sentence."""

    def load(call: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        own = args.load is not None and (Path(args.load) / TRACKER).is_file()
        place = args.load if own else args.pretrained_checkpoint
        with _refusals(place):
            result = run()
        if place is not None:
            _require_numbers(call["ddp_model"], f"the checkpoint in `{place}`")
        return result

    wrap_function(training, "load_checkpoint", ("ddp_model",), load)


def load_weights(chunk: Any, root: Path) -> None:
    """Fill a model chunk of this rank from the newest checkpoint under `root`, and from nothing else of it. All ranks
    read at once. UserError if there is none, or if it is another model's.
    """
    from megatron.core import dist_checkpointing, mpu

    found = find_checkpoint(root)
    if found is None:
        raise UserError(f"`{root}` holds no Megatron checkpoint (no `{TRACKER}` there)")
    with _refusals(root):
        # How the run that wrote it laid its tensors out
        layout = dist_checkpointing.load_content_metadata(str(found.folder)) or {}
        layout["dp_cp_group"] = mpu.get_data_parallel_group(with_context_parallel=True)
        wanted = chunk.sharded_state_dict(metadata=layout)
        # the layers of other chunks lie in the same tensors: nobody reads all of one
        state = dist_checkpointing.load(wanted, str(found.folder), validate_access_integrity=False)
        chunk.load_state_dict({name: state[name] for name in wanted})
    _require_numbers([chunk], f"the checkpoint in `{root}`")


@contextmanager
def _refusals(place: Any) -> Iterator[None]:
    """UserError for a checkpoint in `place` that cannot be read."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # torch's CheckpointException is no Exception
        if isinstance(error, RuntimeError) and "sharding type" in str(error):
            raise UserError(
                f"the checkpoint in `{place}` holds split optimizer states that fit its own TP and PP only",
                help="say `checkpoint.no_load_optim: true`, or let the run that writes it set "
                "`dist_ckpt_optim_fully_reshardable: true` under `megatron.args`",
            ) from error
        if not _is_about_files(error):
            raise
        raise UserError(
            f"the checkpoint in `{place}` does not fit this model, or is not whole: {_words(error)}",
            help="compare the recipe's `model` section with the run that wrote it; its log has the details",
        ) from error


def _require_numbers(chunks: Sequence[Any], whose: str) -> None:
    """UserError if a parameter of this rank is not finite everywhere. chunks: the model chunks of the rank, wrapped."""
    import torch
    from megatron.core.utils import unwrap_model

    for slot in slots(unwrap_model(chunks)):
        bad = slot.parameter.numel() - int(torch.isfinite(slot.parameter.detach()).sum())
        if bad:
            raise UserError(
                f"{whose} holds {bad:,} values of `{slot.name}` that are no finite numbers (NaN or infinity)",
                help="such weights train to nothing: take an earlier checkpoint",
            )


def _is_about_files(error: BaseException) -> bool:
    """Whether it comes from reading, rather than from a defect of a program."""
    from megatron.core.dist_checkpointing.core import CheckpointingException
    from torch.distributed.checkpoint.api import CheckpointException

    return isinstance(error, CheckpointingException | CheckpointException | OSError | KeyError)


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:SHOWN]
