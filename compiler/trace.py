"""Where a line of a build dir comes from: down to a line of the recipe, a preset, a default or a named derivation."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from . import slurm
from .built import PLAN, Built, origin_words
from .launcher import BY_HARDWARE, WORD_KEYS
from .loader import load
from .manifest import MANIFEST, ORIGINS, SUMS
from .origins import ARGUMENT_FILES
from .pointers import split
from .render import CHAT_TEMPLATE, LOCK
from .source import SourceFile
from .template_lines import TemplateLine, match_lines

TEMPLATES = ("launch.sh", "launch.sbatch", "forward_step.py")
# Which model it was that gave a value.
NAMED_BY = {"preset": ("model.preset",), "config.json": ("model.hf",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the answer with what it rests on. `end` is set where the search ends: an origin's kind, `sftc` for a
    decision of sftc's own, `template` for fixed text."""

    text: str
    end: str | None = None
    below: tuple["Step", ...] = ()

    def lines(self, indent: str = "") -> Iterator[str]:
        yield indent + self.text
        for step in self.below:
            yield from step.lines(indent + "  ")

    def ends(self) -> Iterator[str]:
        """Where the branches end."""
        if self.end:
            yield self.end
        for step in self.below:
            yield from step.ends()


def trace_line(built: Built, path: str, number: int) -> Step:
    """Where line `number` of the artifact `path` comes from. IndexError if it has no such line."""
    line = built.texts[path].splitlines()[number - 1]
    return Step(text=f"{built.name}/{path}:{number}: {line.strip()}", below=tuple(_causes(built, path, number, line)))


def trace_key(built: Built, key: str) -> Step:
    """Why a recipe key, or an entry of a mapping that is one, has its value."""
    top = key
    while top not in built.values and "." in top:
        top = top.rpartition(".")[0]
    if top not in built.values:
        return Step(text=f"{key}: the plan has no such value", end="sftc")
    entry = built.values[top]
    value = entry.value
    for part in split(key.removeprefix(top).replace(".", "/")):
        if isinstance(value, dict) and part not in value:
            return Step(text=f"{key}: not set", end="default")
        value = value[int(part)] if isinstance(value, list) else value[part]
    origin = entry.origin
    if origin["from"] == "merged":
        name = key.removeprefix(f"{top}.")
        entries = origin["entries"]
        if name in entries:
            words = origin_words(entries[name], built.places.get(key))
            below: tuple[Step, ...] = (Step(text=words, end=entries[name]["from"]),)
        else:
            below = tuple(trace_key(built, f"{top}.{part}") for part in entries)
    else:
        # Of a mapping that something else gave, the recipe may say some entries itself.
        own = origin.get("recipe", ())
        if key.removeprefix(f"{top}.") in own:
            origin, own = {"from": "recipe"}, ()
        inputs = origin.get("inputs", NAMED_BY.get(origin["from"], ()))
        words = origin_words({**origin, "recipe": ()}, built.places.get(key) or entry.place)
        below = (Step(text=words, end=origin["from"], below=tuple(trace_key(built, one) for one in inputs)),)
        if key == top:
            below += tuple(trace_key(built, f"{top}.{part}") for part in own)
    return Step(text=f"{key} = {json.dumps(value, ensure_ascii=False)}", below=below)


def _causes(built: Built, path: str, number: int, line: str) -> Iterator[Step]:
    if path in ARGUMENT_FILES:
        yield _argument(built, path, line)
    elif path == PLAN:
        yield from _planned(built, number)
    elif path in TEMPLATES:
        yield from _rendered(built, path, number, line)
    elif copied := _copied(built, path, number):
        yield copied
    elif path == MANIFEST:
        yield Step(text="digests of what was made, and of what it was made from", end="sftc")
    elif path == SUMS:
        yield Step(text="the sha256 digest that launch.sh verifies", end="sftc")
    elif path == ORIGINS:
        yield Step(text="where the recipe states a value; it is no part of what runs", end="sftc")
    else:
        yield Step(text="a copy of an input", end="sftc")


def _copied(built: Built, path: str, number: int) -> Step | None:
    """The keys behind a copy of an input: those that name the file, or of a lock the one that a line is about."""
    if path == LOCK:
        pointers = [split(pointer) for pointer in _around(built.texts[path], number)]
        keys = dict.fromkeys(parts[1] for parts in pointers if parts[0] == "inputs" and len(parts) > 1)
        below = tuple(trace_key(built, re.sub(r"\[(\d+)\]", r".\1", key)) for key in keys)
        return Step(text="a copy of the lock beside the recipe, written by `sftc lock`", end="sftc", below=below)
    keys = {f"hooks.{hook['name']}": None for hook in built.plan["hooks"] if hook["target"].startswith(f"{path}:")}
    if path == CHAT_TEMPLATE:
        keys = {"tokenizer.chat_template": None}
    named = tuple(trace_key(built, key) for key in keys)
    return Step(text="a copy of the file that the recipe names", below=named) if named else None


def _argument(built: Built, path: str, line: str) -> Step:
    if not line or line.startswith("# "):
        return Step(text="a heading, and no argument" if line else "an empty line", end="template")
    option = shlex.split(line, comments=True)[0].partition("=")[0]
    planned = built.plan["arguments" if path == ARGUMENT_FILES[0] else "cpu_arguments"]
    item = next((item for item in planned if item["option"] == option), None)
    if item is None:
        return Step(text="the plan has no such argument: the line was written by hand", end="hand")
    return _decided(built, item)


def _decided(built: Built, item: dict[str, Any]) -> Step:
    """The recipe key behind an argument, or sftc's reason for it."""
    if "key" in item:
        return trace_key(built, item["key"])
    return Step(text=f"set by sftc: {item['reason']}", end="sftc")


def _planned(built: Built, number: int) -> Iterator[Step]:
    """The values of plan.json that start on a line; of a value that spans lines, the one that the line is in."""
    around = _around(built.texts[PLAN], number)
    starting = [pointer for pointer, first, _ in _places(built.texts[PLAN]) if first == number]
    shallowest = min(starting, key=lambda pointer: pointer.count("/"), default=None)
    pointer = shallowest or max(around, key=lambda pointer: pointer.count("/"), default="")
    yield from _pointed(built, split(pointer))


def _around(text: str, number: int) -> list[str]:
    """Pointers of the values of a JSON document that a line is in."""
    return [pointer for pointer, first, last in _places(text) if first <= number <= last]


@cache
def _places(text: str) -> list[tuple[str, int, int]]:
    """Each value of a JSON document: its pointer, and the lines from its key to its end."""
    document, _ = load(SourceFile(name="", text=text, sha256=""))
    if document is None:  # edited until it is none
        return []
    return [
        (pointer, (place.key or place.value).line, place.value.end_line)
        for pointer, place in document.places.items()
        if pointer
    ]


def _pointed(built: Built, parts: list[str]) -> Iterator[Step]:
    match parts:
        case ["values", *rest]:
            keys = [".".join(rest[:length]) for length in range(len(rest), 0, -1)]
            key = next((key for key in keys if key in built.values), None)
            yield (
                trace_key(built, key) if key else Step(text=f"the section {'.'.join(rest) or 'of values'}", end="sftc")
            )
        case ["arguments" | "cpu_arguments" as table, index, *_]:
            yield _decided(built, built.plan[table][int(index)])
        case ["environment", index, *_]:
            yield _variable(built, built.plan["environment"][int(index)])
        case ["torchrun", index, *_]:
            yield _word(built, built.plan["torchrun"][int(index)])
        case ["name" | "description" as key]:
            yield trace_key(built, key) if key in built.values else Step(text="the recipe has none", end="default")
        case ["target", *_]:
            yield trace_key(built, "megatron.target")
            yield trace_key(built, "launch.launcher")
        case ["task", *_]:
            yield from (trace_key(built, ".".join(split(pointer))) for pointer in built.plan["task"]["pointers"])
        case [name, *_]:
            yield Step(text=f"`{name}` of the plan, written by sftc {built.plan['sftc_version']}", end="sftc")
        case _:
            yield Step(text=f"the plan, written by sftc {built.plan['sftc_version']}", end="sftc")


def _rendered(built: Built, path: str, number: int, line: str) -> Iterator[Step]:
    bare = line.strip()
    for variable in built.plan["environment"]:
        if path == "launch.sh" and bare.startswith(f"{variable['name']}="):
            yield _variable(built, variable)
            return
    for word in built.plan["torchrun"]:
        if path == "launch.sh" and bare == shlex.quote(word):
            yield _word(built, word)
            return
    keys = bare.rpartition("  # ")[2].removeprefix("read: ").removeprefix("written: ").split(", ")
    if path in ("launch.sh", "launch.sbatch") and all(key in built.values or key in built.places for key in keys):
        yield from (trace_key(built, key) for key in keys)
        return
    if directive := re.match(r"#SBATCH --([a-z0-9-]+)", bare):
        yield _directive(built, directive[1])
        return
    yield from _fixed(built, path, match_lines(path, built.texts[path])[number - 1])


def _fixed(built: Built, path: str, found: TemplateLine | None) -> Iterator[Step]:
    if found is None:
        yield Step(text=f"no line of the template {path}.j2: it was written by hand, or by another sftc", end="hand")
        return
    yield Step(
        text=f"{'a line' if found.shown else 'fixed text'} of the template {path}.j2, line {found.number}",
        end="template",
        below=tuple(trace_key(built, key) for key in found.shown),
    )
    if found.needed:
        yield Step(text="there because of", below=tuple(trace_key(built, key) for key in found.needed))


def _variable(built: Built, variable: dict[str, str]) -> Step:
    reason = variable["reason"]
    if reason.startswith("launch.environment."):
        return trace_key(built, reason)
    below = (trace_key(built, "launch.hardware"),) if reason.endswith(BY_HARDWARE) else ()
    return Step(text=f"set by sftc: {reason}", end="sftc", below=below)


def _directive(built: Built, option: str) -> Step:
    if option in slurm.REASONS:
        return Step(text=f"set by sftc: {slurm.REASONS[option]}", end="sftc")
    return trace_key(built, slurm.KEYS.get(option, f"launch.slurm.{option.replace('-', '_')}"))


def _word(built: Built, word: str) -> Step:
    key = WORD_KEYS.get(word.partition("=")[0])
    return trace_key(built, key) if key else Step(text="set by sftc: each rank's output goes to the logs", end="sftc")
