"""What a recipe has to say itself where a hook takes the place of the rows."""

from collections.abc import Iterator

from ..diagnostics import Diagnostic
from .context import Context

PROVIDER = "hooks.datasets_provider"


def samples_of_its_own(context: Context) -> Iterator[Diagnostic]:
    """Lengths that are otherwise counted on the prepared rows."""
    if context[PROVIDER] is None:
        return
    if context["train.epochs"] is not None and not context.plan.has_rows:
        message = "`train.epochs` counts rows, and the samples are those of a hook"
        yield context.error("SFTC464", "train.epochs", message, also=(PROVIDER,), help="set `train.train_iters`")
    if not context.plan.has_rows:
        for key in ("data.valid_data_path", "data.valid_fraction", "data.on_shared_rows"):
            if context.stated(key):
                message = f"`{key}` is about rows, and the recipe names none to train on"
                yield context.error("SFTC464", key, message, also=(PROVIDER,), help="leave it out, or name the rows")
    named = context["data.valid_data_path"] is not None or context["data.valid_fraction"] is not None
    if context["eval.eval_interval"] is not None and context["eval.eval_iters"] is None and not named:
        message = "nothing says how many batches an evaluation on the samples of a hook has"
        yield context.error("SFTC464", "eval.eval_interval", message, also=(PROVIDER,), help="set `eval.eval_iters`")


RULES = (samples_of_its_own,)
