"""Answers of the model: whether there is something to compare them with, and whether every setting has an effect."""

import re
import warnings
from collections.abc import Iterator

from ..diagnostics import Diagnostic
from ..wording import quoted
from .context import Context

SAMPLES, METRICS, PATTERN = "eval.generate.samples", "eval.generate.metrics", "eval.generate.answer_pattern"
TEMPERATURE, LENGTH = "eval.generate.temperature", "eval.generate.max_new_tokens"
POSITIONS = "model.max_position_embeddings"
START, HOOK = "eval.eval_on_start", "hooks.answer_metrics"
LEAVE_OUT = "or leave `eval.generate` out"
# Of a letter, a blank and a digit: a pattern that finds the empty text in one of them finds it nearly everywhere.
PROBES = ("", "a 1")


def references(context: Context) -> Iterator[Diagnostic]:
    """Rows that hold answers, and a mask that says where they are."""
    if context[SAMPLES] is None:
        return
    if context["data.valid_data_path"] is None and context["data.valid_fraction"] is None:
        message = "answers are asked for, and there are no validation rows"
        help = f"set `data.valid_data_path` or `data.valid_fraction`, {LEAVE_OUT}"
        yield context.error("SFTC485", SAMPLES, message, help=help)
    if context["task.kind"] == "pretrain":
        message = "a task of the kind pretrain reads text, in which nothing is a question or an answer"
        yield context.error("SFTC485", SAMPLES, message, also=("task.kind",), help="leave `eval.generate` out")
        return
    if context["data.loss_on"] == "all":
        message = "the loss is taken on every token, and so does not show which tokens are the answer"
        help = f"write `data.loss_on: assistant` or `data.loss_on: last_turn`, {LEAVE_OUT}"
        yield context.error("SFTC485", "data.loss_on", message, also=(SAMPLES,), help=help)
    if context["data.loss_on_reasoning"] is False:
        message = (
            "what the loss is not taken on is the question, and the reasoning behind the answer would be part of it"
        )
        help = f"leave `data.loss_on_reasoning` out, {LEAVE_OUT}"
        yield context.error("SFTC485", "data.loss_on_reasoning", message, also=(SAMPLES,), help=help)


def no_effect(context: Context) -> Iterator[Diagnostic]:
    if context[SAMPLES] is None:
        if context[HOOK] is not None:
            message = "`hooks.answer_metrics` is called with answers, and none are asked for"
            help = "add a section `eval.generate` with `samples`, or leave the hook out"
            yield context.error("SFTC486", HOOK, message, help=help)
        return
    if context[TEMPERATURE] == 0:
        for key in ("top_k", "top_p", "seed"):
            if context.stated(f"eval.generate.{key}"):
                message = f"`{key}` is about drawing tokens, and with a temperature of 0 none is drawn"
                help = f"set `temperature`, or leave `{key}` out"
                yield context.error("SFTC486", f"eval.generate.{key}", message, also=(TEMPERATURE,), help=help)
    if context[PATTERN] is not None and "exact_match" not in context[METRICS]:
        message = "`answer_pattern` is read for `exact_match` alone, which is not among the metrics"
        help = "add `exact_match` to `metrics`, or leave the pattern out"
        yield context.error("SFTC486", PATTERN, message, also=(METRICS,), help=help)


def at_the_start(context: Context) -> Iterator[Diagnostic]:
    if context[START] and not context.plan.validates:
        message = "`eval.eval_on_start` is set, and there are no validation rows"
        help = "set `data.valid_data_path` or `data.valid_fraction`, or leave it out"
        if context["hooks.datasets_provider"] is not None:
            message, help = "`eval.eval_on_start` is set, and nothing is evaluated", "set `eval.eval_interval`"
        yield context.error("SFTC486", START, message, help=help)


def pattern(context: Context) -> Iterator[Diagnostic]:
    text = context[PATTERN]
    if text is None:
        if _is_comment(context):
            message = "there is no pattern: `#` begins a comment"
            yield context.error(
                "SFTC487", PATTERN, message, help="put it between quotes, as in '#### (.+)', or write null"
            )
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # about what a later Python may read otherwise
            compiled = re.compile(text)
    except re.error as error:
        message = f"the pattern is no regular expression: {error.msg}{_place(text, error.pos)}"
        yield context.error("SFTC487", PATTERN, message)
        return
    except (OverflowError, RecursionError) as error:
        yield context.error("SFTC487", PATTERN, f"the pattern is no regular expression: {error}")
        return
    if compiled.groups > 1:
        message = f"the pattern has {compiled.groups} groups, and the answer is one of them"
        help = "write `(?:...)` in the place of `(...)` for groups that only hold together"
        yield context.error("SFTC487", PATTERN, message, help=help)
    if any(match[0] == "" for probe in PROBES if (match := compiled.search(probe))):
        message = "the pattern matches the empty text, and so is found where there is no answer"
        yield context.error("SFTC487", PATTERN, message, help="`+` in the place of `*` asks for one character at least")


def _is_comment(context: Context) -> bool:
    """Whether the recipe has a comment where it should have a pattern."""
    place, source = context.document.places.get("/" + PATTERN.replace(".", "/")), context.document.source
    if place is None or place.key is None or place.key.file != source.name:
        return False
    line = source.text.splitlines()[place.key.end_line - 1]
    return line[place.key.end_column - 1 :].lstrip(" :\t").startswith("#")


def _place(text: str, position: int | None) -> str:
    """Where it breaks, if Python says so; counted from 0."""
    if position is None:
        return ""
    rest = text[position:]
    return f", at character {position + 1}: {quoted(rest)}" if rest else ", at its end"


def room(context: Context) -> Iterator[Diagnostic]:
    length, positions = context[LENGTH], context[POSITIONS]
    if length is not None and positions is not None and length >= positions:
        message = f"max_new_tokens ({length}) leaves no room for a question in max_position_embeddings ({positions})"
        help = "write a smaller `max_new_tokens` under `eval.generate`"
        yield context.error("SFTC488", LENGTH, message, also=(POSITIONS,), help=help)


RULES = (references, no_effect, at_the_start, pattern, room)
