"""What a Primus experiment says and where: its module, overrides, presets, and what stands elsewhere.

Knows Primus' files and nothing of recipes. Placeholders are replaced by given values or by their defaults.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..diagnostics import Diagnostic, Related, Severity, Span
from ..pointers import split
from . import presets
from .foreign import Files, Leaf, read_leaves
from .ledger import Setting
from .placeholders import expand

FRAMEWORKS = ("megatron", "light-megatron", "megatron_bridge")
HEAD = ("framework", "config", "model", "name", "overrides")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Settings by dotted name: `head` names the framework and the presets, `overrides` is what Primus reads of the
    module beside them, `strays` what it does not, `around` what stands outside of the module. `place` is that of the
    module's first value. `unread` are the presets that were not found, `defaulted` the variables that were not given.
    `partial`: a file that a preset builds on is missing.
    """

    module: str
    place: Span
    head: Mapping[str, Setting]
    overrides: Mapping[str, Setting]
    strays: Mapping[str, Setting]
    around: Mapping[str, Setting]
    presets: Mapping[str, Setting]
    unread: tuple[Setting, ...]
    defaulted: tuple[str, ...]
    partial: bool

    @property
    def bridge(self) -> bool:
        return bool(self.head["framework"].value == "megatron_bridge")

    @property
    def complete(self) -> bool:
        """Whether all that Primus would read has been read, up to Megatron's own defaults."""
        return not (self.unread or self.partial or self.bridge) and {"config", "model"} <= set(self.head)


@dataclass(slots=True, kw_only=True)
class _Reader:
    file: str
    variables: Mapping[str, str]
    files: Files
    used: set[str] = field(default_factory=set)
    defaulted: list[str] = field(default_factory=list)
    reported: set[str] = field(default_factory=set)
    missing_at: list[Span] = field(default_factory=list)

    def setting(self, leaf: Leaf, name: str) -> Setting:
        """`name` is dotted; the value of a placeholder that has none stays as it is, and is reported once."""
        missing = len(self.missing_at)
        value = self._expand(leaf.value, leaf.span)
        first = json.dumps(leaf.value) if isinstance(leaf.value, list) else leaf.text.split("\n")[0]
        line = f"line {leaf.key.line}"
        last = name.rpartition(".")[2]
        return Setting(
            name=name,
            dest=name,
            value=value,
            text=first if value == leaf.value else str(value),
            shown=f"{last}: {first}",
            span=leaf.key,
            where=line if leaf.file == self.file else f"{leaf.file} {line}",
            own=leaf.file == self.file,
            known=len(self.missing_at) == missing,
        )

    def _expand(self, value: object, span: Span) -> object:
        if isinstance(value, list):
            return [self._expand(item, span) for item in value]
        if not isinstance(value, str):
            return value
        expanded = expand(value, self.variables)
        self.used |= set(expanded.used)
        self.defaulted += expanded.defaulted
        for variable in expanded.missing:
            self.missing_at.append(span)
            if variable not in self.reported:
                self.reported.add(variable)
                help = f"say it: `--env {variable}=VALUE`; the environment is not looked at"
                message = f"the placeholder `${{{variable}}}` has no default and no value"
                self.report("SFTC701", message, span, help)
        return expanded.value

    def report(self, code: str, message: str, span: Span | None, help: str, *, severe: bool = True) -> None:
        severity = Severity.ERROR if severe else Severity.WARNING
        self.files.diagnostics.append(Diagnostic(code=code, severity=severity, message=message, span=span, help=help))


def read_experiment(
    path: Path, name: str, files: Files, *, variables: Mapping[str, str], root: Path | None
) -> Experiment | None:
    """The experiment at `path`; None, with errors in `files`, if it has no module that sftc could train."""
    leaves = read_leaves(path, name, files)
    if leaves is None:
        return None
    reader = _Reader(file=name, variables=variables, files=files)
    # What an experiment `extends` is the user's as well.
    stated = {tuple(split(leaf.pointer)): leaf for leaf in leaves}
    module = _module(list(stated), reader, name, stated)
    if module is None:
        return None
    inside = {parts[2:]: leaf for parts, leaf in stated.items() if parts[:2] == ("modules", module)}
    head = {word: reader.setting(inside[word,], word) for word in HEAD if (word,) in inside}
    overrides = {".".join(p[1:]): leaf for p, leaf in inside.items() if p[0] == "overrides" and p[1:]}
    strays = {".".join(p): leaf for p, leaf in inside.items() if p[0] not in HEAD}
    around = {".".join(p): leaf for p, leaf in stated.items() if p[:2] != ("modules", module)}
    place = next(iter(inside.values())).key
    framework = head.get("framework")
    if framework is None or framework.value not in FRAMEWORKS:
        found = f"`{framework.value}`" if framework else "none"
        message = f"the module `{module}` has no framework that sftc knows: found {found}"
        help = "sftc trains on Megatron: `framework: megatron` and `megatron_bridge` can be imported"
        reader.report("SFTC702", message, framework.span if framework else place, help)
        return None
    layers: dict[str, Setting] = {}
    unread: list[Setting] = []
    for word, kind in (("config", "modules"), ("model", "models")):
        preset = _preset(head.get(word), kind, str(framework.value), path, root, reader)
        layers |= preset or {}
        if preset is None and word in head:
            unread.append(head[word])
    read = Experiment(
        module=module,
        place=place,
        head=head,
        overrides={dotted: _own(reader.setting(leaf, dotted)) for dotted, leaf in overrides.items()},
        strays={dotted: _own(reader.setting(leaf, dotted)) for dotted, leaf in strays.items()},
        around={dotted: _own(reader.setting(leaf, dotted)) for dotted, leaf in around.items()},
        presets=layers,
        unread=tuple(unread),
        defaulted=tuple(reader.defaulted),
        partial=files.partial,
    )
    for variable in sorted(set(variables) - reader.used):
        message = f"`--env {variable}=...` was not needed: no placeholder names it"
        reader.report("SFTC701", message, None, "check its spelling", severe=False)
    return read


def _own(setting: Setting) -> Setting:
    return replace(setting, own=True)


def _module(
    parts: list[tuple[str, ...]], reader: _Reader, file: str, stated: Mapping[tuple[str, ...], Leaf]
) -> str | None:
    """The one training module of the experiment."""
    names = list(dict.fromkeys(p[1] for p in parts if p[0] == "modules" and len(p) > 2 and "trainer" in p[1]))
    if len(names) == 1:
        return names[0]
    if names:
        places = [next(leaf.key for p, leaf in stated.items() if p[:2] == ("modules", name)) for name in names]
        reader.files.diagnostics.append(
            Diagnostic(
                code="SFTC702",
                severity=Severity.ERROR,
                message=f"the experiment has {len(names)} trainers: {', '.join(names)}",
                span=places[0],
                help="a recipe is one run: import a copy with one of them",
                related=tuple(Related(message="another starts here", span=place) for place in places[1:]),
            )
        )
        return None
    message = f"`{file}` has no training module: Primus reads `modules.post_trainer` or another `...trainer`"
    reader.report("SFTC702", message, None, "name an experiment's file, not a preset")
    return None


def _preset(
    named: Setting | None, kind: str, framework: str, path: Path, root: Path | None, reader: _Reader
) -> dict[str, Setting] | None:
    """What the preset file says, by dotted name; None if there is no such file."""
    if named is None or not isinstance(named.value, str):
        return None
    framework = "megatron" if framework == "light-megatron" else framework
    file = presets.find(named.value, kind, framework, path, root)
    if file is None:
        return None
    leaves = read_leaves(file, file.name, reader.files, preset=True)
    if leaves is None:
        return None
    found = {}
    for leaf in leaves:
        dotted = ".".join(split(leaf.pointer))
        found[dotted] = reader.setting(leaf, dotted)
    return found
