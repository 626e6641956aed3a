"""Megatron's and torchrun's options, as words, to settings in Megatron's names."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..diagnostics import Related, Severity, Span
from ..options import Option, option_table, problem
from ..scalars import resolve_plain
from .expansion import UNKNOWN, Scope, Word
from .ledger import Ledger, Setting
from .table import target

# torchrun's own options; those without a value.
LAUNCHER_FLAGS = frozenset({"standalone", "no_python", "run_path", "use_env", "m", "module"})
# Nothing of these is carried over, so that it does not matter if their values are known.
NOT_CARRIED = frozenset(
    {"data_path", "train_data_path", "valid_data_path", "test_data_path", "tokenizer_model", "vocab_file", "merge_file"}
)
NUMBER = re.compile(r"-\.?\d.*")


class Places:
    """Offsets of a script to spans and to `line N`."""

    def __init__(self, file: str, text: str) -> None:
        self._file, self._text = file, text

    def span(self, word: Word) -> Span:
        line, column = self._position(word.at)
        # An expanded word has the place of its `$`, not its own width.
        width = len(word.text) if word.places[:1] and word.places[-1] - word.places[0] == len(word.text) - 1 else 1
        return Span(file=self._file, line=line, column=column, end_line=line, end_column=column + width)

    def line(self, word: Word) -> str:
        return f"line {self._position(word.at)[0]}"

    def _position(self, at: int) -> tuple[int, int]:
        return self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at)


def options(words: tuple[Word, ...]) -> Iterator[tuple[Word, str, list[Word]]]:
    """Each option, its name, and the words that follow it; words before the first option belong to none."""
    current: tuple[Word, str, list[Word]] | None = None
    for word in words:
        if word.text.startswith("--") or (word.text.startswith("-") and not NUMBER.fullmatch(word.text)):
            if current:
                yield current
            name, equals, _ = word.text.partition("=")
            current = (word.slice(0, len(name)), name, [word.slice(len(name) + 1)] if equals else [])
        elif current:
            current[2].append(word)
    if current:
        yield current


def megatron_settings(words: tuple[Word, ...], places: Places, scope: Scope, ledger: Ledger) -> dict[str, Setting]:
    """The last setting of each `dest`. What Megatron's parser would refuse is reported and left out."""
    table = option_table(target())
    found: dict[str, Setting] = {}
    for word, name, values in options(words):
        option = table.get(name)
        values = _within(ledger, scope, places, option, values)
        setting = _setting(word, name, values, option, places)
        if setting.dest in NOT_CARRIED:
            found[setting.dest] = setting
        elif unknown(ledger, scope, places, name, [word, *values]):
            ledger.leave_unknown(setting)
        elif option and (wrong := problem(option, name, _typed(option, values))):
            ledger.report("SFTC503", wrong, setting.span)
            ledger.leave(setting, "a value that Megatron does not take")
            ledger.unsure.add(setting.dest)
        else:
            earlier = found.get(setting.dest)
            if earlier:
                ledger.skip(earlier, f"given again in {setting.where}: the last counts, as in Megatron")
            if earlier and earlier.value != setting.value:
                message = f"`{name}` is given twice, and Megatron takes the last: `{setting.text or name}`"
                first = Related(message=f"`{earlier.shown}` stands here", span=earlier.span)
                ledger.report("SFTC705", message, setting.span, severity=Severity.WARNING, related=(first,))
            found[setting.dest] = setting
    return found


def _within(ledger: Ledger, scope: Scope, places: Places, option: Option | None, values: list[Word]) -> list[Word]:
    """The values that the option takes; what is unknown behind them may be further options, and is reported."""
    if option is None or not (option.is_flag or option.nargs in (None, "?")):
        return values
    taken = 0 if option.is_flag else 1
    surplus = [word for word in values[taken:] if word.text == UNKNOWN]
    unknown(ledger, scope, places, "the options", surplus)
    return [*values[:taken], *(word for word in values[taken:] if word.text != UNKNOWN)]


def launcher_settings(words: tuple[Word, ...], places: Places, scope: Scope, ledger: Ledger) -> tuple[Word, ...]:
    """Account for torchrun's options; returns the words behind the script that torchrun starts."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name = word.text.lstrip("-").partition("=")[0].replace("-", "_")
        if not word.text.startswith("-"):
            return tuple(rest)
        if name in LAUNCHER_FLAGS:
            continue
        values = [word.slice(word.text.index("=") + 1)] if "=" in word.text else rest[:1]
        if "=" not in word.text and rest:
            rest.pop(0)
        _launch(word, name, values, places, scope, ledger)
    return ()


def _launch(word: Word, name: str, values: list[Word], places: Places, scope: Scope, ledger: Ledger) -> None:
    key = {"nproc_per_node": "launch.nproc_per_node", "nnodes": "launch.nnodes"}.get(name)
    option = word.text.partition("=")[0]
    setting = _setting(word.slice(0, len(option)), option, values, None, places)
    if key is None:
        ledger.skip(setting, "launch.sh says it")
    elif unknown(ledger, scope, places, option, values):
        ledger.leave_unknown(replace(setting, dest=key))
    elif isinstance(setting.value, int):
        ledger.put(setting, key)
    else:
        ledger.leave(setting, f"write `{key}`: a number of {'nodes' if name == 'nnodes' else 'processes'}")


def unknown(ledger: Ledger, scope: Scope, places: Places, name: str, words: list[Word]) -> bool:
    """Reports words that hold something unknown, and says whether there are any."""
    offsets = [at for word in words for letter, at in zip(word.text, word.places, strict=False) if letter == UNKNOWN]
    for at in dict.fromkeys(offsets):
        reason = scope.unknown[at]
        place = Word(text="$", places=(at,))
        said = (
            f"`--env {reason.name}=VALUE` says what it is"
            if reason.name
            else "write the value into the script, or say what the variable holds with `--env NAME=VALUE`"
        )
        code = "SFTC701" if reason.name and "no value" in reason.because else "SFTC708"
        what = f"the value of `{name}`" if name.startswith("-") else "a part of the options"
        ledger.report(code, f"{what} is not known: {reason.because}", places.span(place), help=said)
    return bool(offsets)


def _setting(word: Word, name: str, values: list[Word], option: Option | None, places: Places) -> Setting:
    texts = [value.text.replace(UNKNOWN, "?") for value in values]
    return Setting(
        name=name,
        dest=option.dest if option else name.lstrip("-").replace("-", "_"),
        value=_value(name, values, option),
        text=" ".join(texts),
        shown=" ".join([name, *texts]),
        span=places.span(word),
        where=places.line(word),
    )


def _value(name: str, values: list[Word], option: Option | None) -> Any:
    if option is None:
        plain = [_plain(value) for value in values]
        return True if not plain else plain[0] if len(plain) == 1 else plain
    if option.is_flag:
        return option.action == "store_true" or (option.action == "boolean_optional" and not name.startswith("--no-"))
    typed = list(_typed(option, values))
    return typed[0] if len(typed) == 1 else typed


def _typed(option: Option, values: list[Word]) -> tuple[Any, ...]:
    """As argparse reads them: a number where the option takes one, else text."""
    return tuple(_plain(value) if option.type in ("int", "float") else value.text for value in values)


def _plain(word: Word) -> Any:
    value, refusal = resolve_plain(word.text)
    return word.text if refusal or value is None else value
