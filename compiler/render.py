"""From a plan to the texts of the build dir. Pure: no file is written, no clock and no environment is read.

The only importer of jinja2. Templates hold no logic beyond `if` and `for`: what they need is computed here.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from math import lcm
from typing import Any

import jinja2

from . import __version__, launcher, slurm
from .container import container
from .estimate.sizes import sizes_of
from .estimate.work import disk_of
from .hooks import step_hooks
from .plan import Argument, Plan
from .quoting import (
    ArgumentLine,
    Comment,
    HtmlText,
    PyLiteral,
    SbatchWord,
    ShellWord,
    ShellWords,
    YamlScalar,
    argument,
    html,
    note,
    py,
    sh,
    words,
    yaml,
)

SCRIPT, TEXT = 0o755, 0o644
LOCK, CHAT_TEMPLATE = "recipe.lock", "chat_template.jinja"  # copies of inputs
LINE = 140  # characters of a line of JSON
# The type that every expression of a template must have, by the ending of the rendered file.
WORD_TYPES: Mapping[str, tuple[type, ...]] = {
    ".sh": (ShellWord, ShellWords, Comment),
    ".sbatch": (ShellWord, ShellWords, SbatchWord, Comment),
    ".py": (PyLiteral, Comment),
    ".args": (ArgumentLine, Comment),
    ".html": (HtmlText,),
    ".yaml": (YamlScalar,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file of the build dir: its path relative to the dir, its bytes, its mode."""

    path: str
    content: bytes
    mode: int = TEXT


def render(plan: Plan) -> tuple[Artifact, ...]:
    """The artifacts of `plan` without manifest, digests and origins, in the order in which a reviewer reads them."""
    facts = _facts(plan)
    artifacts = [Artifact(path="plan.json", content=_plan_json(plan))]
    artifacts.append(_from_template("megatron.args", {**facts, "groups": _grouped(plan.arguments)}))
    if plan.cpu_arguments:
        content = {**facts, "groups": _grouped(plan.cpu_arguments)}
        artifacts.append(_from_template("megatron.args", content, path="megatron.cpu.args"))
    if plan.chat_template is not None:
        artifacts.append(Artifact(path=CHAT_TEMPLATE, content=plan.chat_template.encode()))
    if plan.lock is not None:
        artifacts.append(Artifact(path=LOCK, content=plan.lock))
    artifacts.append(_from_template("forward_step.py", facts))
    copies = {hook.file: hook.text for hook in plan.hooks if hook.file is not None and hook.text is not None}
    artifacts += [Artifact(path=path, content=text.encode()) for path, text in copies.items()]
    artifacts.append(_from_template("launch.sh", facts, mode=SCRIPT))
    if plan["launch.launcher"] == "slurm":
        artifacts.append(_from_template("launch.sbatch", facts, mode=SCRIPT))
    return tuple(artifacts)


@cache
def template_text(name: str) -> str:
    """The source of the template `name`, such as `launch.sh`."""
    return (files("sftc.templates") / f"{name}.j2").read_text(encoding="utf-8")


def template_names(plan: Plan) -> list[str]:
    """The templates that `render` uses for this plan."""
    names = ["forward_step.py", "launch.sh", "megatron.args"]
    return [*names, "launch.sbatch"] if plan["launch.launcher"] == "slurm" else names


def environment(name: str) -> jinja2.Environment:
    """A strict environment for one template: undefined names fail, and so does every expression left unquoted."""
    accepted = next(types for ending, types in WORD_TYPES.items() if name.endswith(ending))

    def finalize(value: Any) -> Any:
        if type(value) not in accepted:
            wanted = " or ".join(kind.__name__ for kind in accepted)
            raise TypeError(f"{name}.j2: every expression must be a {wanted}, found {type(value).__name__}: {value!r}")
        return value

    env = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=name.endswith(".html"),
    )
    filters: dict[str, Callable[..., Any]] = {
        "sh": sh,
        "words": words,
        "py": py,
        "note": note,
        "html": html,
        "yaml": yaml,
    }
    env.filters.update(filters)
    return env


def render_page(name: str, facts: Mapping[str, Any]) -> bytes:
    """A page for people, which is no artifact. `script_digest` lets its own script run, and no other."""
    source = template_text(name)
    script = source.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment(name).from_string(source).render({**facts, "script_digest": digest}).encode()


def render_recipe(name: str, preset: str | None) -> str:
    """A recipe to start from, of the shape of a published model if `preset` names one."""
    return environment("recipe.yaml").from_string(template_text("recipe.yaml")).render(name=name, preset=preset)


def _from_template(name: str, facts: Mapping[str, Any], *, path: str | None = None, mode: int = TEXT) -> Artifact:
    text = environment(name).from_string(template_text(name)).render(facts)
    return Artifact(path=path or name, content=text.encode(), mode=mode)


def _facts(plan: Plan) -> dict[str, Any]:
    return {
        "version": __version__,
        "name": plan.name,
        "task": plan.task,
        "supervised": supervised(plan),
        "validates": plan.validates,
        "hooks": {name: _hook(plan, name) for name in step_hooks()},
        "has_hooks": any(_hook(plan, name) for name in step_hooks()),
        "has_rows": plan.has_rows,
        "weights": source_weights(plan),
        "pad_to": pad_to(plan),
        "skips_unsupervised": skips_unsupervised(plan),
        "value": {key: resolved.value for key, resolved in plan.values.items()},
        "environment": plan.environment,
        "torchrun": plan.torchrun,
        "port": launcher.port(plan),
        "directives": slurm.directives(plan),
        "last_group": slurm.last_group(plan),
        "container": container(plan),
    }


def _hook(plan: Plan, name: str) -> dict[str, str] | None:
    found = [hook for hook in plan.hooks if hook.name == name]
    return {"target": found[0].target, "takes": ", ".join(found[0].takes)} if found else None


def skips_unsupervised(plan: Plan) -> bool:
    """Whether no loss is computed where none is trained on. A hook may weigh tokens by something else than the mask."""
    names = {hook.name for hook in plan.hooks}
    return bool(plan["train.fused_linear_cross_entropy"]) and not names & {"loss", "metrics"}


def source_weights(plan: Plan) -> tuple[float, ...] | None:
    """The weight of each source, as a number with a point; None if there are none."""
    found = [source.get("weight") for source in plan["data.sources"] or []]
    return tuple(map(float, found)) if found and None not in found else None


def pad_to(plan: Plan) -> int:
    """What the length of a micro-batch is a multiple of: 16 suits the matrix units, and splits need equal parts."""
    context = plan["parallel.context_parallel_size"]
    tensor = plan["parallel.tensor_model_parallel_size"] if plan["parallel.sequence_parallel"] else 1
    return lcm(16, 2 * context if context > 1 else 1, context * tensor)


def supervised(plan: Plan) -> str:
    """Which tokens the loss is taken on, as a person would say it."""
    return supervised_words(plan.task.kind, plan["data.loss_on"])


def supervised_words(kind: str, loss_on: str) -> str:
    """The same of `task.kind` and `data.loss_on`."""
    if kind == "pretrain":
        return "every token"
    return {
        "assistant": "the assistant's tokens only",
        "last_turn": "the tokens of the last response only",
        "all": "every token of the conversation",
    }[loss_on]


def _grouped(arguments: tuple[Argument, ...]) -> list[tuple[Comment, list[tuple[ArgumentLine, Comment]]]]:
    groups: dict[str, list[tuple[ArgumentLine, Comment]]] = {}
    for item in arguments:
        line = argument(item.option, item.values), note(item.key or f"sftc: {item.reason}")
        groups.setdefault(item.group, []).append(line)
    return [(note(group), lines) for group, lines in groups.items()]


def _plan_json(plan: Plan) -> bytes:
    document = {
        "plan_version": 1,
        "sftc_version": __version__,
        "name": plan.name,
        "description": plan.description,
        "target": {"megatron": plan["megatron.target"], "launcher": plan["launch.launcher"]},
        "task": {
            "kind": plan.task.kind,
            "marker": plan.task.marker,
            "reason": plan.task.reason,
            "pointers": list(plan.task.pointers),
        },
        "values": dict(plan.sections()),
        "arguments": [{"option": item.option, "values": list(item.values), **_why(item)} for item in plan.arguments],
        "cpu_arguments": [
            {"option": item.option, "values": list(item.values), **_why(item)} for item in plan.cpu_arguments
        ],
        "environment": [{"name": item.name, "value": item.value, "reason": item.reason} for item in plan.environment],
        "torchrun": list(plan.torchrun),
        "port": launcher.port(plan),
        "disk": asdict(disk_of(plan, sizes_of(plan))),
        "hooks": [{"name": hook.name, "target": hook.target, "takes": list(hook.takes)} for hook in plan.hooks],
    }
    return to_json(document)


def _why(item: Argument) -> dict[str, str]:
    return {"key": item.key} if item.key else {"reason": item.reason}


def to_json(document: Any) -> bytes:
    """JSON for a person and a diff: two blanks, keys in the order of their meaning, what fits on a line on one."""
    return (_layout(document, "") + "\n").encode()


def _layout(node: Any, indent: str) -> str:
    flat = json.dumps(node, ensure_ascii=False, allow_nan=False)
    if len(indent) + len(flat) <= LINE and not (indent == "" and isinstance(node, dict)):
        return flat
    deeper = indent + "  "
    if isinstance(node, dict) and node:
        items = [
            f"{deeper}{json.dumps(key, ensure_ascii=False)}: {_layout(item, deeper)}" for key, item in node.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(node, list) and node:
        return "[\n" + ",\n".join(deeper + _layout(item, deeper) for item in node) + f"\n{indent}]"
    return flat
