"""A Primus configuration to a recipe.

What Primus reads is mapped; what it would drop without a word, because it stands in the wrong place, is pointed out
and not taken.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ..diagnostics import Severity
from ..rules.launch import SECRET
from . import flag, presets, rows, start
from .adapters import adapters
from .finish import Imported, failed, finish
from .foreign import Files
from .ledger import Entry, Fate, Ledger, Setting, defaulted
from .primus_source import Experiment, read_experiment
from .request import Request
from .settle import settle
from .table import dest_of

MARKERS = ("is_instruction_dataset", "is_sft")
STAGES: Mapping[str, flag.Kind] = {"sft": "sft", "pretrain": "pretrain"}
SAID = {"framework": "a recipe is for Megatron", "name": "a label", "overrides": "nothing is set"}
NAME = re.compile(r"[^A-Za-z0-9._-]+")


def import_primus(path: Path, name: str, request: Request) -> Imported:
    """The recipe of the experiment at `path`, called `name` in messages."""
    files = Files(sources={}, diagnostics=[])
    read = read_experiment(path, name, files, variables=request.variables, root=request.root)
    if read is None:
        return failed(files.diagnostics, files.sources)
    overrides, layers = _by_dest(read.overrides), _by_dest(read.presets)
    merged = {**overrides, **{dest: one for dest, one in layers.items() if dest not in overrides}}
    flat = {dest: one for dest, one in merged.items() if "." not in dest and dest not in (*MARKERS, "stage", "peft")}
    ledger = Ledger(tool="Primus", settings=flat, given=request.given)
    kind = flag.decide(ledger, list(_statements(ledger, read, merged, request.task)), read.place, _hint(read))
    settle(ledger, complete=read.complete)
    start.first_weights(ledger, sft=kind != "pretrain", complete=read.complete)
    adapters(ledger, merged)
    _blocks(ledger, read, merged)
    _strays(ledger, read)
    _around(ledger, read)
    _head(ledger, read)
    defaulted(ledger, read.defaulted)
    return finish(
        ledger,
        title=f"Imported from {path.name} (Primus). A comment names the line that a value comes from.",
        output=request.output,
        given=request.given,
        sources=files.sources,
        diagnostics=files.diagnostics,
    )


def _by_dest(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """A second name for an option that is given keeps its own: that they clash is told when they are placed."""
    dests = {name: name if dest_of(name) in settings else dest_of(name) for name in settings}
    return {dests[name]: replace(one, dest=dests[name]) for name, one in settings.items()}


def _statements(
    ledger: Ledger, read: Experiment, merged: Mapping[str, Setting], task: flag.Kind | None
) -> Iterator[flag.Statement]:
    """What is said about the task where Primus reads it."""
    for name in MARKERS:
        if name in merged and isinstance(merged[name].value, bool):
            yield flag.of_setting(merged[name], "sft" if merged[name].value else "pretrain")
        elif name in merged and merged[name].value is None:
            ledger.skip(merged[name], "nothing is set")
        elif name in merged:
            ledger.leave(merged[name], "neither true nor false")
    if stage := merged.get("stage"):
        if stage.value in STAGES:
            yield flag.of_setting(stage, STAGES[stage.value])
        elif stage.value is None:
            ledger.skip(stage, "nothing is set")
        else:
            ledger.report("SFTC702", f"the stage `{stage.value}` is neither sft nor pretrain", stage.span)
            ledger.leave(stage, "sftc does supervised fine-tuning and pretraining")
    if read.module.startswith("pre_trainer"):
        text = f"modules.{read.module}"
        yield flag.Statement(kind="pretrain", text=text, comment=text, span=read.place)
    if task:
        yield flag.of_option(task)


def _hint(read: Experiment) -> str | None:
    """What looks like the flag and is none."""
    lines = [
        f"`{name}` on line {one.span.line} is outside of `overrides`: Primus does not read it there"
        for name, one in {**read.strays, **read.around}.items()
        if name.rpartition(".")[2] in (*MARKERS, "stage") and one.span
    ]
    if "finetune_lr" in read.overrides:
        lines.append("`finetune_lr` is a learning rate; it does not say it")
    lines += [f"the preset `{one.value}` may say it: `--primus-root DIR` names its checkout" for one in read.unread[:1]]
    return "\n".join(lines) or None


def _blocks(ledger: Ledger, read: Experiment, merged: Mapping[str, Setting]) -> None:
    """Mappings among the overrides: Megatron-Bridge has some, Primus' own Megatron backend drops all."""
    told = set()
    for dotted, one in merged.items():
        name = dotted.split(".")[0]
        if "." not in dotted or name == "lora":
            continue
        if read.bridge and dotted == "dataset.dataset_name":
            rows.dataset_name(ledger, one)
        elif read.bridge:
            ledger.leave(one, "Megatron-Bridge's own")
        else:
            ledger.leave(one, f"Primus' Megatron backend drops the mapping `{name}`")
            if one.own and name not in told:
                message = f"Primus' Megatron backend drops the mapping `{name}`: nothing in it has an effect there"
                help = "what is meant to count stands directly under `overrides`"
                ledger.report("SFTC707", message, one.span, help=help, severity=Severity.WARNING)
            told.add(name)


def _strays(ledger: Ledger, read: Experiment) -> None:
    for name, one in read.strays.items():
        ledger.leave(one, "outside of `overrides`: Primus drops it")
        place = f"modules.{read.module}.overrides"
        message = f"Primus drops `{name}`: it stands beside `overrides`, not in it"
        if other := read.overrides.get(name):
            message += f", where line {other.span.line if other.span else '?'} says `{other.text}`"
        _dropped(ledger, one, message, f"move it under `{place}` if it is meant to count, or remove it")


def _around(ledger: Ledger, read: Experiment) -> None:
    for name, one in read.around.items():
        top = name.split(".")[0]
        if name == "exp_name":
            _name(ledger, one)
        elif top in ("work_group", "user_name", "workspace"):
            ledger.leave(one, "a part of Primus' output folder; write `logging.run_path`")
        elif top == "platform":
            ledger.leave(one, "Primus' own; how ranks are started stands under `launch`")
        elif top == "env" and "." in name:
            variable = name.partition(".")[2]
            if SECRET.search(variable):
                ledger.leave(replace(one, shown=variable), "a secret; export it where launch.sh is started")
            else:
                ledger.put(one, f"launch.environment.{variable}", value=str(one.value))
        elif top == "modules":
            ledger.leave(one, "not of the module that trains")
        else:
            ledger.leave(one, "Primus reads no such key here")
            help = f"move it under `modules.{read.module}.overrides` if it is meant to count, or remove it"
            _dropped(ledger, one, f"Primus drops `{name}`: it reads no such key at the root", help)


def _dropped(ledger: Ledger, one: Setting, message: str, help: str) -> None:
    ledger.report("SFTC707", message, one.span, help=help, severity=Severity.WARNING)


def _name(ledger: Ledger, one: Setting) -> None:
    if not one.known:
        ledger.leave_unknown(replace(one, dest="name"))
        return
    name = NAME.sub("-", str(one.value)).strip("-.")[:64]
    if name == one.value:
        ledger.put(one, "name")
    else:
        ledger.put(one, "name", value=name, note="a name has letters, digits, dots, dashes and underscores")


def _head(ledger: Ledger, read: Experiment) -> None:
    """The presets by name: read, known to recipes, or missing."""
    for word, one in read.head.items():
        known = presets.model_preset(str(one.value)) if word == "model" and one in read.unread else None
        if known:
            ledger.put(replace(one, dest="model.preset"), "model.preset", value=known)
        elif word in SAID:
            ledger.skip(one, SAID[word])
        elif one in read.unread:
            ledger.leave(one, "the preset was not read")
            message = f"the preset `{one.value}` was not found: what it sets is not in the recipe"
            help = "name a checkout of Primus with `--primus-root DIR`, or copy the preset beside the configuration"
            ledger.report("SFTC706", message, one.span, help=help, severity=Severity.WARNING)
        else:
            ledger.entries.append(Entry(setting=one, fate=Fate.MAPPED, key=word, note="read as a preset"))
