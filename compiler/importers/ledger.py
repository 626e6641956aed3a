"""What an importer works with: settings of the source, and an account of what became of each.

Every setting ends in exactly one entry: mapped, renamed, without effect, or not mapped with the reason.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..diagnostics import Diagnostic, Related, Severity, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of the source. `dest` is Megatron's name for it (`lr` for `--lr`), or the source's own.

    `text` is the value as it is written there, `shown` the whole setting for a comment. `own` is false for what comes
    from a preset, or is a default: what the user's file says counts more. `known` is false for a value that needs a
    variable which has none.
    """

    name: str
    dest: str
    value: Any
    text: str
    shown: str
    span: Span | None
    where: str
    own: bool = True
    known: bool = True


class Fate(StrEnum):
    MAPPED = "mapped"
    RENAMED = "renamed"
    EMPTY = "without effect"
    UNMAPPED = "not mapped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of `setting`: its recipe key, or the reason why it has none."""

    setting: Setting
    fate: Fate
    key: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value of the recipe with the comment that says where it comes from."""

    value: Any
    text: str
    comment: str
    setting: Setting | None = None


@dataclass(slots=True, kw_only=True)
class Ledger:
    """`settings` holds the last word on each `dest`; `tool` is what messages call the source.

    `given` are values of the recipe that the command line says; `unsure` has each `dest` whose value is unknown.
    """

    tool: str
    settings: Mapping[str, Setting]
    given: Mapping[str, Any] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)

    def __getitem__(self, dest: str) -> Any:
        """The value that the source gives to `dest`, or None."""
        return self.settings[dest].value if dest in self.settings else None

    def put(self, setting: Setting, key: str, value: Any = None, note: str | None = None) -> None:
        """`key` takes the value of `setting`, or another one that follows from it."""
        given = setting.value if value is None else value
        text = setting.text if value is None else ""
        same = setting.name.lstrip("-").replace("-", "_") == key.rpartition(".")[2]
        plain = same and setting.shown == f"{setting.name}: {text}"
        comment = setting.where if plain else f"{setting.where}: {setting.shown}"
        new = Value(value=given, text=text, comment=comment, setting=setting)
        old = self.values.get(key)
        if old and old.setting and (old.setting.own or not setting.own):
            if old.value != given:
                if setting.own:
                    self._clash(key, old.setting, setting)
                self.skip(setting, f"`{old.setting.name}` says `{key}`")
                return
        else:
            self.values[key] = new
        self.entries.append(Entry(setting=setting, fate=Fate.MAPPED if same else Fate.RENAMED, key=key, note=note))

    def skip(self, setting: Setting, note: str) -> None:
        """Nothing would change if the source left `setting` out."""
        self.entries.append(Entry(setting=setting, fate=Fate.EMPTY, note=note))

    def leave_unknown(self, setting: Setting) -> None:
        """The value is to be had by mending the error that has been reported."""
        self.leave(setting, "its value is not known")
        self.unsure.add(setting.dest)

    def leave(self, setting: Setting, note: str) -> None:
        """`setting` is not carried over."""
        self.entries.append(Entry(setting=setting, fate=Fate.UNMAPPED, note=note))

    def give(self, key: str, value: Any, comment: str) -> None:
        """A value from the command line, which goes before what the source says."""
        for number, entry in enumerate(self.entries):
            if entry.key == key:
                self.entries[number] = Entry(setting=entry.setting, fate=Fate.EMPTY, note=f"{comment} says `{key}`")
        self.values[key] = Value(value=value, text="", comment=comment)

    def fill(self, key: str, value: Any, comment: str) -> None:
        """A value that no setting states."""
        self.values.setdefault(key, Value(value=value, text="", comment=comment))

    def report(
        self,
        code: str,
        message: str,
        span: Span | None,
        *,
        help: str | None = None,
        severity: Severity = Severity.ERROR,
        related: Iterable[Related] = (),
    ) -> None:
        self.diagnostics.append(
            Diagnostic(code=code, severity=severity, message=message, span=span, help=help, related=tuple(related))
        )

    def _clash(self, key: str, first: Setting, second: Setting) -> None:
        self.report(
            "SFTC705",
            f"`{first.name}` and `{second.name}` both set `{key}`, to `{first.text}` and `{second.text}`",
            second.span,
            help="keep one of the two",
            related=(Related(message=f"`{first.name}` stands here", span=first.span),),
        )


def defaulted(ledger: Ledger, names: Iterable[str]) -> None:
    """Say which variables of the source took their default."""
    if shown := ", ".join(f"`{name}`" for name in dict.fromkeys(names)):
        help = "`--env NAME=VALUE` gives another value; the environment is not looked at"
        ledger.report("SFTC701", f"taken by default: {shown}", None, help=help, severity=Severity.NOTE)


type Handler = Callable[[Ledger, Setting], None]
