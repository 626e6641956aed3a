"""Megatron's pretrain(), from the generated module to the last iteration."""

import importlib
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

from ..errors import UserError
from ..record import epoch_seconds
from .arguments import parse, release_line
from .background import mend_async_worker, mend_save_helper
from .lines import LINES, require_signature
from .loading import watch_loading
from .mends import (
    mend_adam,
    mend_distributed_optimizer,
    mend_gradient_norm,
    mend_learning_rate,
    mend_packed_rotation,
    mend_query_projection,
    mend_random_state,
    mend_tracker,
    skip_compilation,
)
from .model import Model
from .news import Asking, News, Observer
from .stopping import OPTIONS, listen
from .wrapping import unwrap_functions


def train(
    arguments: Sequence[str],
    step: ModuleType,
    model: Model,
    observer: Observer,
    *,
    fused_adam: bool = False,
    asking: Asking | None = None,
    store: Any = None,
) -> int:
    """Run Megatron's pretrain() to its end and return the last iteration.

    step: the generated module, with `forward_step` and `train_valid_test_datasets_provider`; model: what is ours in the
    model; fused_adam: torch's AdamW steps in one kernel, where Megatron takes it; asking: what an evaluation does
    besides; store: where the ranks meet, None for the environment's.
    """
    started = epoch_seconds()
    training = importlib.import_module("megatron.training.training")
    import torch
    from megatron.core.enums import ModelType

    _mend(fused_adam)
    unwrap_functions()
    mend_random_state(training)
    listen()
    args = parse([*arguments, *OPTIONS])
    line = release_line()
    news = News(args, observer, asking or Asking())
    news.listen(training)
    watch_loading(training, args)
    training.set_startup_timestamps(program_start=started, main_entry=started)
    call = {
        **LINES[line](args, model),
        "train_valid_test_dataset_provider": news.announcing(step.train_valid_test_datasets_provider),
        "model_type": ModelType.encoder_or_decoder,
        "forward_step_func": news.counting(step.forward_step),
        "non_loss_data_func": news.ask,
    }
    if store is not None:
        call["store"] = store
    require_signature(training.pretrain, call, line)
    try:
        training.pretrain(**call)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"rank {args.rank} has not enough memory on its GPU: {error}".split(" If reserved but")[0],
            help="recompute more, take a smaller `train.micro_batch_size`, or split the model over more ranks",
        ) from error
    except SystemExit as stop:  # how Megatron ends at --exit-interval, and also how it gives up, both with status 0
        if stop.code or not news.has_trained:
            when = f"after iteration {news.iteration}" if news.has_trained else "before the first iteration"
            raise RuntimeError(f"Megatron gave up {when} with status {stop.code or 0}; its log says why") from stop
    return news.iteration


@cache
def _mend(fused_adam: bool) -> None:
    """Once in a process, however often it begins."""
    skip_compilation()
    mend_distributed_optimizer()
    mend_learning_rate()
    mend_adam(fused_adam)
    mend_save_helper()
    mend_async_worker()
    mend_tracker()
    mend_query_projection()
    mend_packed_rotation()
    mend_gradient_norm()
