"""The last lines of a command: what is trained on and why, and how large the run is."""

from .compile import Checked
from .plan import Plan
from .render import supervised

_SIZES = {
    "TP": "tensor_model_parallel_size",
    "PP": "pipeline_model_parallel_size",
    "CP": "context_parallel_size",
    "DP": "data_parallel_size",
}


def task_line(result: Checked) -> str:
    """The SFT flag of a recipe without errors, with the place that says so."""
    assert result.plan is not None
    assert result.document is not None
    task = result.plan.task
    what = ("" if task.kind == "sft" else "NOT SFT, ") + f"loss on {supervised(result.plan)}"
    place = result.document.places[task.pointers[0]].value
    return f"task: {task.kind}, {what}, because {task.reason} ({place.file}:{place.line}:{place.column})"


def layout_line(plan: Plan) -> str:
    """Ranks, with the arithmetic, and iterations."""
    sizes = {name: plan[f"parallel.{key}"] for name, key in _SIZES.items()}
    layout = " * ".join(f"{name}({size})" for name, size in sizes.items())
    iterations, epochs = plan["train.train_iters"], plan["train.epochs"]
    length = f"{epochs:g} epochs in batches of" if iterations is None else f"{iterations} iterations of"
    return (
        f"{layout} = {plan['launch.world_size']} rank(s), {length} "
        f"{plan['train.global_batch_size']} samples, Megatron-Core {plan['megatron.target']}"
    )
