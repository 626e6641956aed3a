"""Loading a checkpoint through Megatron: what it refuses, in words, and what it would train on without a word."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..checkpoint.tracker import TRACKER
from ..errors import UserError
from .parameters import slots
from .wrapping import wrap_function

SHOWN = 400  # characters of a library's own words


def watch_loading(training: ModuleType, args: Any) -> None:
    """Let a checkpoint that cannot be loaded, or holds weights that are no numbers, end the run with one sentence."""

    def load(call: Mapping[str, Any], run: Callable[[], Any]) -> Any:
        own = args.load is not None and (Path(args.load) / TRACKER).is_file()
        place = args.load if own else args.pretrained_checkpoint
        try:
            result = run()
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
        if place is not None:
            _require_numbers(call["ddp_model"], f"the checkpoint in `{place}`")
        return result

    wrap_function(training, "load_checkpoint", ("ddp_model",), load)


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
