"""Every setting of a source to its recipe key, or to the reason why it has none.

Keys that hold the value of one Megatron option come from the recipe schema. What is more than that, such as a number of
samples that becomes one of iterations, has a handler; the rest goes under `megatron.args`, checked.
"""

from collections.abc import Mapping

from ..options import Option, problem
from ..schemas import leaves
from ..suggest import SYNONYMS, closest
from . import rows, schedule, shape, start
from .ledger import Handler, Ledger, Setting
from .table import defaults, dest_of, keys_by_dest, options_by_dest, remedies, target, versions_with

HANDLERS: Mapping[str, Handler] = {**shape.HANDLERS, **schedule.HANDLERS, **start.HANDLERS, **rows.HANDLERS}
# Other tools' names for one of ours that look like ours and hold something else.
FALSE_FRIENDS = frozenset({"env", "extra_args", "dataset", "datasets", "warmup", "scheduler"})
# Defaults of Megatron's that are about speed or talk: the recipe's own serve as well.
MATTERS_NOT = frozenset({"train.gradient_accumulation_fusion", "logging.log_interval", "eval.eval_iters"})


def settle(ledger: Ledger, *, complete: bool) -> None:
    """Fill `ledger.values` and account for every setting.

    `complete`: the source leaves nothing unread, so that what it does not say is Megatron's default.
    """
    for setting in ledger.settings.values():
        place(ledger, setting, complete=complete)
    schedule.finish(ledger, complete=complete)
    if complete:
        _megatron_defaults(ledger)


def place(ledger: Ledger, setting: Setting, *, complete: bool) -> None:
    dest = dest_of(setting.dest)
    if not setting.known:
        ledger.leave_unknown(setting)
    elif setting.value is None or setting.value == {} or setting.value == []:
        ledger.skip(setting, "nothing is set")
    elif dest.startswith("moe_") and ledger["num_experts"] is None and complete:
        ledger.skip(setting, "there are no experts")
    elif dest in HANDLERS:
        HANDLERS[dest](ledger, setting)
    elif dest in keys_by_dest():
        ledger.put(setting, keys_by_dest()[dest])
    elif dest in options_by_dest():
        _raw(ledger, setting, options_by_dest()[dest])
    elif dest in SYNONYMS and dest not in FALSE_FRIENDS:
        ledger.put(setting, SYNONYMS[dest], note=f"`{setting.name}` is spelled `{SYNONYMS[dest]}` here")
    else:
        _unknown(ledger, setting)


def _raw(ledger: Ledger, setting: Setting, options: tuple[Option, ...]) -> None:
    """An option without a recipe key of its own."""
    dest, value = setting.dest, setting.value
    if value == defaults()[dest]:
        ledger.skip(setting, "Megatron's default")
        return
    if dest == "wandb_project":
        ledger.put(setting, SYNONYMS[dest], note="sftc's own writer goes on with the same run after a restart")
        return
    if dest in remedies():
        ledger.leave(setting, remedies()[dest])
        return
    option = options[0]
    if option.is_flag:
        name = _flag(options, value)
        if name is None:
            ledger.skip(setting, "nothing is set")
            return
        ledger.put(setting, f"megatron.args.{_key(name)}", value=True)
        return
    values = tuple(value) if isinstance(value, list) else (value,)
    if wrong := problem(option, option.strings[0], values):
        ledger.report("SFTC503", wrong, setting.span)
        ledger.leave(setting, "a value that Megatron does not take")
    else:
        ledger.put(setting, f"megatron.args.{_key(option.strings[0])}")


def _flag(options: tuple[Option, ...], value: object) -> str | None:
    """The spelling that gives the flag this value; None if only its absence does."""
    wanted = "store_true" if value else "store_false"
    for option in options:
        if option.action == wanted:
            return option.strings[0]
        if option.action == "boolean_optional":
            return next(text for text in option.strings if text.startswith("--no-") is (not value))
    return None


def _key(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _unknown(ledger: Ledger, setting: Setting) -> None:
    reason = f"Megatron {target()} has no such option"
    if setting.value is False and not setting.name.startswith("-"):
        ledger.skip(setting, f"off, and {reason}")
        return
    if versions := versions_with("--" + setting.dest.replace("_", "-")):
        reason += f", but {', '.join(versions)} has it"
    if guess := closest(setting.dest, options_by_dest()) if setting.own else None:
        reason += f"; did you mean `{guess}`?"
    ledger.leave(setting, reason)


def _megatron_defaults(ledger: Ledger) -> None:
    """State what Megatron would do and the recipe by itself would not."""
    schemas = dict(leaves())
    for dest, key in keys_by_dest().items():
        default = defaults()[dest]
        said = key in ledger.values or ledger[dest] is not None or dest in ledger.unsure
        idle = key in MATTERS_NOT or (dest.startswith("moe_") and ledger["num_experts"] is None)
        differs = default is not None and default != schemas[key].get("default")
        if differs and not said and not idle and dest not in HANDLERS:
            ledger.fill(key, default, "Megatron's default")
    shape.finish(ledger)
