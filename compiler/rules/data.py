"""Rows and evaluation."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

VALID = "data.valid_data_path"
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


def row_format(context: Context) -> Iterator[Diagnostic]:
    kind, form = context["task.kind"], context["data.format"]
    if (kind == "pretrain") != (form == "text"):
        fitting = "text" if kind == "pretrain" else "messages, prompt_completion, sharegpt or alpaca"
        yield context.error(
            "SFTC431", "data.format", f"a task of the kind {kind} reads rows of the format {fitting}, not {form}"
        )
        return
    for name, formats in COLUMNS.items():
        key = f"data.columns.{name}"
        if form not in formats and context.stated(key):
            read_with = " or ".join(", ".join(formats).rsplit(", ", 1))
            message = f"`{key}` is read only with data.format: {read_with}, and the format is {form}"
            yield context.error("SFTC431", key, message, also=("data.format",))
    if kind == "pretrain" and context.stated("data.loss_on"):
        yield context.error(
            "SFTC431", "data.loss_on", "a pretrain task takes the loss on every token", help="leave it out"
        )


def evaluation(context: Context) -> Iterator[Diagnostic]:
    if context[VALID] is None:
        for key in ("eval.eval_interval", "eval.eval_iters"):
            if context.stated(key):
                message = f"`{key}` is set, and there are no validation rows"
                yield context.error("SFTC432", key, message, help=f"set `{VALID}`, or leave the evaluation out")
    elif context["eval.eval_interval"] is None:
        message = "there are validation rows, and nothing says when to look at them"
        yield context.error("SFTC432", VALID, message, help="set `eval.eval_interval`, in iterations")
    elif context["eval.eval_interval"] > context["train.train_iters"]:
        interval, iters = context["eval.eval_interval"], context["train.train_iters"]
        message = f"eval_interval ({interval}) is longer than the run ({iters} iterations): evaluated only at the end"
        yield context.warning("SFTC433", "eval.eval_interval", message, also=("train.train_iters",))


def leak(context: Context) -> Iterator[Diagnostic]:
    if context[VALID] is not None and context[VALID] == context["data.train_data_path"]:
        message = "the validation rows are the training rows"
        yield context.error("SFTC434", VALID, message, also=("data.train_data_path",), help="name another file")


RULES = (row_format, evaluation, leak)
