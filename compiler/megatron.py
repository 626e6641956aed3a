"""From a plan to Megatron's arguments, in a fixed order, each with the recipe key behind it.

Which key maps to which option is stated in the recipe schema (`x-megatron` and its two variants). This module adds the
options that sftc itself answers for, each with its reason, and the raw ones of `megatron.args`. Every option is checked
against the option table of the target; nothing is emitted unchecked.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .diagnostics import Diagnostic, Severity, Span
from .loader import RecipeDocument
from .options import Option, managed_options, option_table, problem, spell
from .parameters import raw_option
from .plan import Argument, Plan
from .schemas import leaves, recipe_schema
from .targets import check_keys, missing, taken_elsewhere

HUGGING_FACE = "hf:"  # such weights are put into the model by the runtime
LOCAL_LAYERS = (
    ("--no-persist-layer-norm", "torch-native norms"),
    ("--no-masked-softmax-fusion", "attention is torch-native"),
    ("--no-rope-fusion", "needs Apex or Transformer Engine"),
)
CPU_DEVICE = (
    ("--distributed-backend", "gloo", "no GPU"),
    ("--use-cpu-initialization", None, "no GPU"),
    ("--no-bias-swiglu-fusion", None, "a CUDA kernel"),
    ("--no-bias-gelu-fusion", None, "a CUDA kernel"),
    ("--no-bias-dropout-fusion", None, "a CUDA kernel"),
)

# Shares of the time limit of a collective. A rank that makes no progress is interrupted before its collectives run into
# that limit, and killed at it; the others wait for it a little longer.
INPROCESS_TIMEOUTS = {"soft": 0.75, "hard": 1.0, "barrier": 1.5, "completion": 1.5}


def arguments(plan: Plan) -> Plan:
    """`plan` with its `arguments` and `cpu_arguments`; a programmer's error when the target lacks one of ours."""
    on_cpu = tuple(
        Argument(option=name, values=(value,) if value else (), reason=reason, group="device")
        for name, value, reason in CPU_DEVICE
    )
    device = plan["launch.device"]
    main = [*_from_keys(plan), *_managed(plan), *(on_cpu if device == "cpu" else ()), *_raw(plan)]
    table = option_table(plan["megatron.target"])
    for argument in (*main, *on_cpu):
        assert argument.option in table, f"{argument.option} is not an option of Megatron {plan['megatron.target']}"
    order = {section: index for index, section in enumerate(_groups())}
    main.sort(key=lambda argument: order[argument.group])
    return replace(plan, arguments=tuple(main), cpu_arguments=on_cpu if device == "auto" else ())


def check(plan: Plan, document: RecipeDocument) -> list[Diagnostic]:
    """Every key and every entry of `megatron.args` that the target would refuse, or that sftc answers for."""
    return [*check_keys(plan, document, _from_keys(plan)), *_check_raw(plan, document)]


def _check_raw(plan: Plan, document: RecipeDocument) -> list[Diagnostic]:
    table = option_table(plan["megatron.target"])
    managed = {table[option].dest: key for key, option in key_options() if option in table}
    found = []
    earlier: dict[str, str] = {}
    for name, value in plan["megatron.args"].items():
        message = _raw_problem(name, value, plan["megatron.target"], table, managed)
        if message is None:
            first = earlier.setdefault(table[_option_name(name)].dest, name)
            if first != name:
                message = "SFTC503", f"`{name}` sets what `{first}` has set", "remove one of the two"
        if message:
            code, text, help_text = message
            pointer = f"/megatron/args/{name}"
            found.append(
                Diagnostic(
                    code=code,
                    severity=Severity.ERROR,
                    message=text,
                    span=_place(document, pointer),
                    pointer=pointer,
                    help=help_text,
                )
            )
    return found


def _place(document: RecipeDocument, pointer: str) -> Span | None:
    """The key in the recipe; an option that the model's preset adds has none, and is reported where that is named."""
    if place := document.places.get(pointer):
        return place.key
    named = document.places.get("/model/preset") or document.places.get("/model/hf")
    return named.value if named else None


def _raw_problem(
    name: str, value: Any, target: str, table: dict[str, Option], managed: dict[str, str]
) -> tuple[str, str, str | None] | None:
    option_name = _option_name(name)
    option = table.get(option_name)
    if option is None:
        return "SFTC501", *missing(target, option_name)
    if option_name in managed_options():
        return "SFTC502", f"`{option_name}` is not for `megatron.args`", managed_options()[option_name]
    if option.dest in managed:
        return "SFTC502", f"`{option_name}` has a recipe key of its own", f"use `{managed[option.dest]}`"
    if value is False and option.action != "boolean_optional":
        return "SFTC503", f"`{name}: false` sets nothing", "leave the line out"
    values = () if isinstance(value, bool) else _as_tuple(value)
    text = problem(option, option_name, values)
    return ("SFTC503", text, taken_elsewhere(option_name, values)) if text else None


def _from_keys(plan: Plan) -> Iterator[Argument]:
    for key, schema in leaves():
        value, section = plan.values[key].value if key in plan.values else None, key.split(".")[0]
        option: str | None = schema.get("x-megatron")
        if "x-megatron-false" in schema:
            option = None if value else schema["x-megatron-false"]
            value = True
        elif "x-megatron-cases" in schema:
            option = schema["x-megatron-cases"].get(value)
            value = True
        if option is None or value is None or value is False:
            continue
        values = () if value is True else (spell(value),)
        yield Argument(option=option, values=values, key=key, group=section)


def _managed(plan: Plan) -> Iterator[Argument]:
    if not raw_option(plan, "multi_latent_attention"):  # which Megatron allows no query groups beside
        yield Argument(option="--group-query-attention", key="model.num_query_groups", group="model")
    if plan["megatron.target"] == "0.17":
        yield Argument(
            option="--padded-vocab-size",
            values=(spell(_padded_vocabulary(plan)),),
            reason="0.17 would make room for one token more",
            group="model",
        )
    yield Argument(
        option="--tokenizer-type",
        values=("NullTokenizer",),
        reason="rows are tokenized before the ranks start",
        group="tokenizer",
    )
    yield Argument(
        option="--dataloader-type", values=("single",), reason="the order is seeded and resumable", group="data"
    )
    yield Argument(
        option="--no-create-attention-mask-in-dataloader", reason="attention is causal in its kernel", group="data"
    )
    save = plan["checkpoint.save"]
    yield Argument(option="--load", values=(save,), reason="a second start resumes the first", group="checkpoint")
    if plan["checkpoint.async_save"]:
        worker = "asynchronous saving goes through one"
        yield Argument(option="--use-persistent-ckpt-worker", reason=worker, group="checkpoint")
        own = "Megatron's own; the other one needs a package besides"
        yield Argument(option="--async-strategy", values=("mcore",), reason=own, group="checkpoint")
    if plan["launch.max_inprocess_restarts"]:
        yield from _inprocess_restart(plan)
    load = plan["model.load"]
    # weights to be frozen are read by the runtime: Megatron would miss the adapters in that checkpoint
    if load and plan["checkpoint.finetune"] and not load.startswith(HUGGING_FACE) and plan["lora.rank"] is None:
        yield Argument(option="--pretrained-checkpoint", values=(load,), key="model.load", group="checkpoint")
    if not plan.validates:
        # Any number will do, and with epochs the run's length is not known yet.
        iters = spell(plan["train.train_iters"] or 1)
        yield Argument(option="--eval-interval", values=(iters,), reason="Megatron needs a number", group="eval")
        yield Argument(option="--eval-iters", values=("0",), reason="no validation rows", group="eval")
    if plan["model.transformer_impl"] == "local":
        for option, reason in LOCAL_LAYERS:
            yield Argument(option=option, reason=reason, group="model")


def _inprocess_restart(plan: Plan) -> Iterator[Argument]:
    yield Argument(option="--inprocess-restart", key="launch.max_inprocess_restarts", group="launch")
    whole = "all ranks begin again, and no node is spare"
    yield Argument(option="--inprocess-granularity", values=("rank",), reason=whole, group="launch")
    seconds = 60 * plan["launch.distributed_timeout_minutes"]
    for name, share in INPROCESS_TIMEOUTS.items():
        yield Argument(
            option=f"--inprocess-{name}-timeout",
            values=(spell(round(share * seconds)),),
            key="launch.distributed_timeout_minutes",
            group="launch",
        )


def _padded_vocabulary(plan: Plan) -> int:
    """Rows of the embedding: every tensor-parallel rank holds a multiple of `make_vocab_size_divisible_by`."""
    multiple = plan["model.make_vocab_size_divisible_by"] * plan["parallel.tensor_model_parallel_size"]
    return int(-(-plan["model.vocab_size"] // multiple) * multiple)


def _raw(plan: Plan) -> Iterator[Argument]:
    table = option_table(plan["megatron.target"])
    for name, value in plan["megatron.args"].items():
        option = _option_name(name)
        if value is False:
            option = next(text for text in table[option].strings if text.startswith("--no-"))
        values = () if isinstance(value, bool) else tuple(spell(item) for item in _as_tuple(value))
        yield Argument(option=option, values=values, key=f"megatron.args.{name}", group="megatron")


def _groups() -> list[str]:
    return [*recipe_schema()["properties"], "device"]


def key_options() -> Iterator[tuple[str, str]]:
    """Each recipe key with the Megatron options it sets."""
    for key, schema in leaves():
        for option in (
            schema.get("x-megatron"),
            schema.get("x-megatron-false"),
            *schema.get("x-megatron-cases", {}).values(),
        ):
            if option:
                yield key, option


def _option_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)
