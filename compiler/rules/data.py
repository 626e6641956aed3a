"""Rows and evaluation."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

VALID = "data.valid_data_path"
COLUMNS = {"messages": ("messages",), "prompt_completion": ("prompt", "completion", "system"), "text": ("text",)}


def row_format(context: Context) -> Iterator[Diagnostic]:
    kind, form = context["task.kind"], context["data.format"]
    if (kind == "pretrain") != (form == "text"):
        fitting = "text" if kind == "pretrain" else "messages or prompt_completion"
        yield context.error(
            "SFTC431", "data.format", f"a task of the kind {kind} reads rows of the format {fitting}, not {form}"
        )
        return
    for owner, names in COLUMNS.items():
        for key in (f"data.columns.{name}" for name in names):
            if owner != form and context.stated(key):
                message = f"`{key}` is read only with data.format: {owner}, and the format is {form}"
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
