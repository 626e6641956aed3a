"""How the release lines of Megatron differ in what pretrain() is told about the arguments and the model.

0.17 parses the arguments itself and is given a function that builds the model. 0.18 takes them as a configuration,
with the same function. 0.19 builds the model from the configuration.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

from ..errors import UserError
from .model import Model
from .provider import model_provider


def of_017(args: Any, model: Model) -> dict[str, Any]:
    training: Any = importlib.import_module("megatron.training.training")
    # pretrain() would parse the command line into arguments of its own; the model and the log read these
    training.initialize_megatron = partial(training.initialize_megatron, parsed_args=args)
    return {"model_provider": model_provider(args, model)}


def of_018(args: Any, model: Model) -> dict[str, Any]:
    from megatron.training.argument_utils import pretrain_cfg_container_from_args

    return {
        "cfg_container": pretrain_cfg_container_from_args(args),
        "model_provider": model_provider(args, model),
    }


def of_019(args: Any, model: Model) -> dict[str, Any]:
    from megatron.training.argument_utils import gpt_config_from_args, pretrain_cfg_container_from_args

    config = gpt_config_from_args(args)
    config.transformer.variable_seq_lengths = model.tells_lengths(args)
    if (layer_spec := model.layer_spec) is not None:
        config.transformer_layer_spec = lambda built, vp_stage: layer_spec(built.transformer, vp_stage)
    config.rope_scaling_factor = args.rope_scaling_factor  # it leaves the model at its default of 8

    def finish(chunks: list[Any]) -> list[Any]:
        model.finish(chunks)
        return chunks

    config.pre_wrap_hooks.append(finish)
    return {"cfg_container": pretrain_cfg_container_from_args(args, config)}


LINES: dict[str, Callable[[Any, Model], dict[str, Any]]] = {"0.17": of_017, "0.18": of_018, "0.19": of_019}


def step_flops(args: Any, lengths: Sequence[int]) -> float:
    """Floating-point operations of a step on rows of `lengths` tokens, on all ranks, as Megatron counts them."""
    count: Any = importlib.import_module("megatron.training.training").num_floating_point_operations
    if "total_real_tokens_in_batch" in inspect.signature(count).parameters:
        squares = sum(length * length for length in lengths)
        return float(count(args, 1, seqlen_squared_sum_in_batch=squares, total_real_tokens_in_batch=sum(lengths)))
    # 0.17 knows one length for all rows: here the mean
    own = copy(args)
    own.seq_length = sum(lengths) / max(len(lengths), 1)
    return float(count(own, len(lengths)))


# What `evaluate_first` hands on from train() to the evaluation.
START = (
    "forward_step_func",
    "model",
    "valid_data_iterator",
    "process_non_loss_data_func",
    "config",
    "non_loss_data_func",
)


def evaluate_first(training: Any, args: Any, call: Mapping[str, Any]) -> None:
    """Evaluate as Megatron does it during the training, before its train() begins with the arguments `call`."""
    model = call["model"]
    # The forward of a distributed optimizer that gathers parameters while it goes is not for an evaluation.
    is_gathering = training.should_disable_forward_pre_hook(args)
    if is_gathering:
        training.disable_forward_pre_hook(model, param_sync=False)
    more = {name: call[name] for name in ("pg_collection", "p2p_communicator") if name in call}
    training.evaluate_and_print_results(
        "iteration 0 on validation set",
        call["forward_step_func"],
        call["valid_data_iterator"],
        model,
        0,
        call["process_non_loss_data_func"],
        call["config"],
        verbose=False,
        write_to_tensorboard=True,
        non_loss_data_func=call["non_loss_data_func"],
        **more,
    )
    if is_gathering:
        training.enable_forward_pre_hook(model)


def require_signature(pretrain: Any, call: Mapping[str, Any], line: str) -> None:
    """UserError unless `pretrain` takes the keywords of `call` and needs no others."""
    parameters = inspect.signature(pretrain).parameters
    needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    wrong = [f"takes no `{name}`" for name in call if name not in parameters]
    wrong += [f"needs `{name}`" for name in parameters if name in needed - set(call)]
    if wrong:
        raise UserError(
            f"this Megatron's pretrain() {wrong[0]}",
            help=f"its version says {line} but it is another; use the released wheel or checkout",
        )
