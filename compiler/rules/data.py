"""Rows and evaluation."""

import re
from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

TRAIN, SOURCES = "data.train_data_path", "data.sources"
VALID, FRACTION = "data.valid_data_path", "data.valid_fraction"
PROVIDER = "hooks.datasets_provider"
# Which formats read which column.
COLUMNS = {
    "messages": ("messages",),
    "prompt": ("prompt_completion",),
    "completion": ("prompt_completion",),
    "conversations": ("sharegpt",),
    "instruction": ("alpaca",),
    "input": ("alpaca",),
    "output": ("alpaca",),
    "history": ("alpaca",),
    "system": ("prompt_completion", "sharegpt", "alpaca"),
    "text": ("text",),
}


def one_of_each(context: Context) -> Iterator[Diagnostic]:
    """Training rows are named in one way, validation rows in one way at most."""
    if context[TRAIN] is not None and context[SOURCES] is not None:
        yield context.error(
            "SFTC437", SOURCES, "training rows are named twice", also=(TRAIN,), help=f"remove `{TRAIN}` or `{SOURCES}`"
        )
    elif not context.plan.has_rows and context[PROVIDER] is None:
        yield context.error("SFTC437", TRAIN, "there are no training rows", help=f"set `{TRAIN}`, or list `{SOURCES}`")
    if context[VALID] is not None and context[FRACTION] is not None:
        yield context.error(
            "SFTC437",
            FRACTION,
            "validation rows are named twice",
            also=(VALID,),
            help=f"remove `{VALID}` or `{FRACTION}`",
        )
    if context[VALID] is None and context.stated("data.on_shared_rows"):
        message = f"`data.on_shared_rows` is set, and there is no `{VALID}`"
        yield context.error("SFTC437", "data.on_shared_rows", message, help="leave it out")


def weights(context: Context) -> Iterator[Diagnostic]:
    entries = context[SOURCES] or []
    without = [number for number, entry in enumerate(entries) if "weight" not in entry]
    if without and len(without) < len(entries):
        message = "some sources have a weight, and this one has none"
        yield context.error("SFTC438", f"{SOURCES}.{without[0]}", message, help="give all of them a weight, or none")


def row_format(context: Context) -> Iterator[Diagnostic]:
    entries = context[SOURCES] or []
    yield from _format(context, "data", context["data.format"])
    for number, entry in enumerate(entries):
        if "format" in entry or "columns" in entry:
            own = entry.get("format") or context["data.format"]
            yield from _format(context, f"{SOURCES}.{number}", own, entry.get("columns", {}))
    if context["task.kind"] == "pretrain" and context.stated("data.loss_on"):
        yield context.error(
            "SFTC431", "data.loss_on", "a pretrain task takes the loss on every token", help="leave it out"
        )


def reasoning(context: Context) -> Iterator[Diagnostic]:
    key = "data.loss_on_reasoning"
    if context[key] is False and (context["data.loss_on"] == "all" or context["task.kind"] == "pretrain"):
        message = "the loss is taken on every token, and not on reasoning"
        yield context.error("SFTC431", key, message, also=("data.loss_on",), help="remove one of the two")


def _format(context: Context, place: str, form: str, columns: dict[str, str] | None = None) -> Iterator[Diagnostic]:
    """Of all rows, or with `columns` of one source's."""
    kind = context["task.kind"]
    if form != "tokens" and (kind == "pretrain") != (form == "text"):
        fitting = "text or tokens" if kind == "pretrain" else "messages, prompt_completion, sharegpt, alpaca or tokens"
        message = f"a task of the kind {kind} reads rows of the format {fitting}, not {form}"
        yield context.error("SFTC431", f"{place}.format", message)
        return
    for name, formats in COLUMNS.items():
        key = f"{place}.columns.{name}"
        # Which columns are read is known later where the format is.
        may_read = form in formats or (form == "auto" and formats != ("text",))
        if not may_read and (context.stated(key) if columns is None else name in columns):
            read_with = " or ".join(", ".join(formats).rsplit(", ", 1))
            shown = re.sub(r"\.(\d+)\.", r"[\1].", key)
            message = f"`{shown}` is read only with data.format: {read_with}, and the format is {form}"
            yield context.error("SFTC431", key, message, also=("data.format",))


def evaluation(context: Context) -> Iterator[Diagnostic]:
    if context[VALID] is None and context[FRACTION] is None:
        for key in ("eval.eval_interval", "eval.eval_iters"):
            if context.stated(key) and context[PROVIDER] is None:
                message = f"`{key}` is set, and there are no validation rows"
                yield context.error(
                    "SFTC432", key, message, help=f"set `{VALID}` or `{FRACTION}`, or leave the evaluation out"
                )
    elif context["eval.eval_interval"] is None:
        message = "there are validation rows, and nothing says when to look at them"
        key = VALID if context[FRACTION] is None else FRACTION
        yield context.error("SFTC432", key, message, help="set `eval.eval_interval`, in iterations")
    elif context["eval.eval_interval"] > (context["train.train_iters"] or context["eval.eval_interval"]):
        interval, iters = context["eval.eval_interval"], context["train.train_iters"]
        message = f"eval_interval ({interval}) is longer than the run ({iters} iterations): evaluated only at the end"
        yield context.warning("SFTC433", "eval.eval_interval", message, also=("train.train_iters",))


def leak(context: Context) -> Iterator[Diagnostic]:
    entries = [(TRAIN, context[TRAIN])]
    entries += [(f"{SOURCES}.{number}.path", entry["path"]) for number, entry in enumerate(context[SOURCES] or [])]
    for key, path in entries:
        if context[VALID] is not None and context[VALID] == path:
            message = "the validation rows are the training rows"
            help = f"name another file, or hold rows out: `{FRACTION}`"
            yield context.error("SFTC434", VALID, message, also=(TRAIN,) if key == TRAIN else (), help=help)


RULES = (one_of_each, weights, row_format, reasoning, evaluation, leak)
