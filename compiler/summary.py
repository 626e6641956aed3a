"""The last lines of a command: what is trained on and why, and how large the run is."""

from .compile import Checked
from .lora import adapter_parameters
from .parameters import parameters
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


def size_line(plan: Plan) -> str:
    """How many parameters the model has, of experts how many a token passes through, and those of adapters."""
    count = parameters(plan)
    text = f"{spell_count(count.total)} parameters"
    if count.active != count.total:
        text += f", {spell_count(count.active)} active per token"
    if plan["lora.rank"] is not None:
        text += f", {spell_count(adapter_parameters(plan))} more in adapters, which alone are trained"
    if count.uncounted:
        text += f", without those of {', '.join(f'`{name}`' for name in count.uncounted)}"
    return text


def spell_count(count: int) -> str:
    """`8.03 B`, `134.5 M`, `640`: short scale, three or four digits."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.{1 if count >= 100 * size else 2}f} {unit}"
    return str(count)


def layout_line(plan: Plan) -> str:
    """Ranks, with the arithmetic, and iterations."""
    sizes = {name: plan[f"parallel.{key}"] for name, key in _SIZES.items()}
    layout = " * ".join(f"{name}({size})" for name, size in sizes.items())
    iterations, epochs = plan["train.train_iters"], plan["train.epochs"]
    if iterations is None:
        length = f"{epochs:g} {'epoch' if epochs == 1 else 'epochs'} in batches of"
    else:
        length = f"{iterations} {'iteration' if iterations == 1 else 'iterations'} of"
    return (
        f"{layout} = {plan['launch.world_size']} rank(s), {length} "
        f"{plan['train.global_batch_size']} samples, Megatron-Core {plan['megatron.target']}"
    )
