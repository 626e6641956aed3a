"""A Megatron command line to a recipe: a script that starts it, or the list of its options."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..diagnostics import Severity
from ..rules.launch import SECRET, SET_BY_BASH, SET_BY_STARTER, SET_BY_TORCHRUN
from ..source import SourceFile, read_source
from . import flag, start
from .command_line import Places, launcher_settings, megatron_settings
from .expansion import UNKNOWN, Word
from .finish import Imported, failed, finish
from .ledger import Ledger, Setting, defaulted
from .request import Request
from .script import Script, read_script
from .settle import settle
from .shell_words import ShellError

NAME = re.compile(r"[^A-Za-z0-9._-]+")
NOT_FOR_RANKS = SET_BY_BASH | SET_BY_STARTER | SET_BY_TORCHRUN | {"PATH", "NNODES", "NODE_RANK", "HOME", "PWD"}


def import_megatron(path: Path | None, name: str, request: Request) -> Imported:
    """The recipe of the command line in the file at `path`, or on standard input; `name` is for messages."""
    source, found = read_source(path, name)
    if source is None:
        return failed(found, {})
    sources = {name: source.text}
    ledger = Ledger(tool="Megatron", settings={}, given=request.given)
    places = Places(name, source.text)
    script = _read(source, request, ledger, places)
    words = _words(script, ledger, places, name) if script else None
    if script is None or words is None:
        return failed(ledger.diagnostics, sources)
    settings = megatron_settings(words, places, script.scope, ledger)
    stated = [flag.of_setting(settings["sft"], "sft")] if "sft" in settings else []
    ledger.settings = {dest: one for dest, one in settings.items() if dest != "sft"}
    if request.task:
        stated.append(flag.of_option(request.task))
    kind = flag.decide(ledger, stated, places.span(words[0]) if words else None, _hint(settings))
    settle(ledger, complete=True)
    start.first_weights(ledger, sft=kind != "pretrain", complete=True)
    _environment(ledger, script, places)
    _strays(ledger, script, places, request.variables)
    stem = NAME.sub("-", Path(name).stem).strip("-.")[:64]
    if stem:
        ledger.fill("name", stem, "the file's name")
    return finish(
        ledger,
        title=f"Imported from {Path(name).name} (Megatron). A comment names the line that a value comes from.",
        output=request.output,
        given=request.given,
        sources=sources,
        diagnostics=[],
    )


def _read(source: SourceFile, request: Request, ledger: Ledger, places: Places) -> Script | None:
    try:
        return read_script(source.text, request.variables)
    except ShellError as error:
        place = Word(text="", places=(error.at,))
        ledger.report("SFTC708", f"this is no shell script: {error}", places.span(place), help="close it")
        return None


def _words(script: Script, ledger: Ledger, places: Places, name: str) -> tuple[Word, ...] | None:
    """The options of the one command that starts Megatron; torchrun's are accounted for."""
    if len(script.commands) > 1:
        second = script.commands[1]
        message = f"{len(script.commands)} commands start Megatron, and a recipe is one run"
        ledger.report("SFTC709", message, places.span(second.words[0]), help="import a copy with one of them")
        return None
    if not script.commands and script.bare:
        return tuple(script.bare)
    if not script.commands:
        for at, because in script.hidden[:1]:
            message = f"the command that starts Megatron is not read: {because}"
            help = "import a copy in which it stands by itself, with the values that it has for you"
            ledger.report("SFTC708", message, places.span(Word(text="", places=(at,))), help=help)
        if not script.hidden:
            help = "wanted: `torchrun ... pretrain_gpt.py --num-layers ...`, or the options alone"
            ledger.report("SFTC709", f"no command in `{name}` starts Megatron", None, help=help)
        return None
    command = script.commands[0]
    if command.launcher is None:
        first = next(number for number, word in enumerate(command.words) if word.text.endswith(".py"))
        ledger.fill("launch.nproc_per_node", 1, f"{places.line(command.words[0])}: no torchrun, one process")
        return command.words[first + 1 :]
    return launcher_settings(command.words[command.launcher + 1 :], places, script.scope, ledger)


def _strays(ledger: Ledger, script: Script, places: Places, variables: Mapping[str, str]) -> None:
    """What was taken without being said: defaults, arguments of the script, variables that nothing needs."""
    for at in script.scope.rest:
        place = places.span(Word(text="$", places=(at,)))
        message = "`$@` stands for the arguments of the script, which are not known"
        help = "`--env @='--lr 1e-5'` says what they are"
        ledger.report("SFTC701", message, place, help=help, severity=Severity.WARNING)
    defaulted(ledger, script.scope.defaulted.values())
    for name in sorted(set(variables) - script.scope.used - {"@", "*"}):
        message = f"`--env {name}=...` was not needed: nothing in the script names it"
        ledger.report("SFTC701", message, None, help="check its spelling", severity=Severity.WARNING)


def _hint(settings: Mapping[str, Setting]) -> str | None:
    if "finetune" in settings:
        return "`--finetune` is about the checkpoint that the run starts from; it does not say it"
    return None


def _environment(ledger: Ledger, script: Script, places: Places) -> None:
    """What the script exports to the ranks."""
    for name, word in script.exported.items():
        text = word.text
        setting = Setting(
            name=name,
            dest=name,
            value=text,
            text=text,
            shown=f"export {name}={text}",
            span=places.span(word),
            where=places.line(word),
        )
        if name in NOT_FOR_RANKS:
            ledger.skip(setting, "launch.sh or torchrun says it")
        elif SECRET.search(name):
            ledger.leave(replace(setting, shown=f"export {name}"), "a secret; export it where launch.sh is started")
        elif UNKNOWN in text:
            ledger.leave(replace(setting, shown=f"export {name}"), "its value is not known; write `launch.environment`")
        else:
            ledger.put(setting, f"launch.environment.{name}")
