"""From a valid recipe to a plan: what the recipe says, the schema's defaults, and what follows from them.

Only derivations that a reviewer would do in the head belong here; each has a name and lists its inputs. This stage
reports nothing: whether the values fit together is the business of `rules`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .layers import origin_of
from .loader import RecipeDocument
from .options import option_of
from .plan import Default, Derived, Hook, Plan, Resolved, Shape
from .pointers import pointer_to
from .schemas import leaves, switch_of
from .task import TaskResolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """Fills `key` where it is null, from the values of `inputs`, in this order."""

    key: str
    rule: str
    inputs: tuple[str, ...]
    compute: Callable[..., Any]


DERIVATIONS = (
    Derivation(key="logging.run_path", rule="runs/ + name", inputs=("name",), compute=lambda name: f"runs/{name}"),
    Derivation(
        key="logging.tensorboard_dir",
        rule="run_path + /tensorboard",
        inputs=("logging.run_path",),
        compute=lambda run_path: f"{run_path.rstrip('/')}/tensorboard",
    ),
    Derivation(
        key="checkpoint.save",
        rule="run_path + /checkpoints",
        inputs=("logging.run_path",),
        compute=lambda run_path: f"{run_path.rstrip('/')}/checkpoints",
    ),
    Derivation(
        key="checkpoint.save_interval",
        rule="once, after the last iteration (with epochs: known at the start of the run)",
        inputs=("train.train_iters",),
        compute=lambda train_iters: train_iters,
    ),
    Derivation(
        key="train.lr_decay_iters",
        rule="the whole run (with epochs: known at its start)",
        inputs=("train.train_iters",),
        compute=lambda train_iters: train_iters,
    ),
    Derivation(
        key="model.kv_channels",
        rule="hidden_size / num_attention_heads",
        inputs=("model.hidden_size", "model.num_attention_heads"),
        compute=lambda hidden, heads: hidden // heads,
    ),
    Derivation(
        key="model.num_query_groups",
        rule="as many as query heads",
        inputs=("model.num_attention_heads",),
        compute=lambda heads: heads,
    ),
    Derivation(
        key="lora.alpha",
        rule="as large as the rank",
        inputs=("lora.rank",),
        compute=float,
    ),
    Derivation(
        key="data.format",
        rule="text for pretrain; for sft found out from the rows when they are prepared",
        inputs=("task.kind",),
        compute=lambda kind: "text" if kind == "pretrain" else "auto",
    ),
    Derivation(
        key="data.padding",
        rule="none for packs; max_length where experts are shared between ranks; else longest",
        inputs=("data.packing", "parallel.expert_model_parallel_size"),
        compute=lambda packing, experts: None if packing else "max_length" if experts > 1 else "longest",
    ),
    Derivation(
        key="launch.slurm.output",
        rule="name and job id; of an array, its id and the task",
        inputs=("launch.launcher", "launch.slurm.array"),
        compute=lambda launcher, array: None if launcher != "slurm" else "%x-%A_%a.out" if array else "%x-%j.out",
    ),
    Derivation(
        key="launch.world_size",
        rule="nnodes * nproc_per_node",
        inputs=("launch.nnodes", "launch.nproc_per_node"),
        compute=lambda nnodes, nproc: nnodes * nproc,
    ),
    Derivation(
        key="parallel.data_parallel_size",
        rule="world_size / (TP * PP * CP)",
        inputs=(
            "launch.world_size",
            "parallel.tensor_model_parallel_size",
            "parallel.pipeline_model_parallel_size",
            "parallel.context_parallel_size",
        ),
        # At least 1: a layout that does not divide the world is reported by the rules, not by a division by zero.
        compute=lambda world, tp, pp, cp: max(1, world // (tp * pp * cp)),
    ),
)


ARGS = "megatron.args"


def resolve(
    document: RecipeDocument,
    task: TaskResolution,
    *,
    chat_template: str | None = None,
    hooks: tuple[Hook, ...] = (),
    shape: Shape | None = None,
) -> Plan:
    """The plan of a `document` that satisfies the schema.

    `chat_template` is the text of the file it names, `hooks` are the functions and `shape` is the model that it names;
    what the recipe says itself wins.
    """
    values = {key: _stated(document, key, schema) for key, schema in leaves()}
    if shape is not None:
        values |= _from_shape(values, shape)
    if values["task.kind"].value is None:
        flags = ("task.is_instruction_dataset", "task.is_sft")
        values["task.kind"] = Resolved(value=task.kind, origin=Derived(rule="the SFT flag", inputs=flags))
    for derivation in DERIVATIONS:
        if derivation.key not in values or (
            values[derivation.key].value is None and not _is_left_out(document, derivation.key)
        ):
            inputs = (values[key].value for key in derivation.inputs)
            values[derivation.key] = Resolved(
                value=derivation.compute(*inputs), origin=Derived(rule=derivation.rule, inputs=derivation.inputs)
            )
    _, name, description = (values.pop(key) for key in ("base", "name", "description"))
    return Plan(
        name=name.value,
        description=description.value,
        task=task,
        values=values,
        chat_template=chat_template,
        hooks=hooks,
        shape=shape,
    )


def _from_shape(values: Mapping[str, Resolved], shape: Shape) -> dict[str, Resolved]:
    """The values that the model gives. Of two spellings of a Megatron option the recipe's is kept."""
    found = {
        key: Resolved(value=value, origin=shape.origin)
        for key, value in shape.values.items()
        if isinstance(values[key].origin, Default)
    }
    stated, target = values[ARGS].value, values["megatron.target"].value
    taken = {option_of(target, name) for name in stated}
    given = {name: value for name, value in shape.args.items() if option_of(target, name) not in taken}
    if given:
        found[ARGS] = Resolved(value={**given, **stated}, origin=replace(shape.origin, recipe=tuple(stated)))
    return found


def _is_left_out(document: RecipeDocument, key: str) -> bool:
    """Whether the section that gives `key` a meaning is not there."""
    section = switch_of(key)
    return section is not None and pointer_to(section.split(".")) not in document.places


def _stated(document: RecipeDocument, key: str, schema: Mapping[str, Any]) -> Resolved:
    if _is_left_out(document, key):
        return Resolved(value=None, origin=Default())
    node: Any = document.data
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return Resolved(value=schema.get("default"), origin=Default())
        node = node[part]
    origin = origin_of(document, pointer_to(key.split(".")), node)
    if schema["type"] == "number" or (isinstance(schema["type"], list) and "number" in schema["type"]):
        # `lr: 1` and `lr: 1.0` are the same number and must give the same bytes.
        node = float(node) if node is not None else None
    return Resolved(value=node, origin=origin)
