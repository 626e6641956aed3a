"""The SFT flag of a source: what it says in so many words. Neither a learning rate nor a file's name says it."""

from dataclasses import dataclass
from typing import Literal

from ..diagnostics import Related, Span
from .ledger import Ledger, Setting

type Kind = Literal["sft", "pretrain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """`text` as it is shown; `setting` if it is one of the source's."""

    kind: Kind
    text: str
    comment: str
    span: Span | None
    setting: Setting | None = None


def of_setting(setting: Setting, kind: Kind) -> Statement:
    return Statement(
        kind=kind,
        text=setting.shown,
        comment=f"{setting.where}: {setting.shown}",
        span=setting.span,
        setting=setting,
    )


def of_option(kind: Kind) -> Statement:
    return Statement(kind=kind, text=f"--task {kind}", comment=f"said by --task {kind}", span=None)


def decide(ledger: Ledger, stated: list[Statement], place: Span | None, hint: str | None = None) -> Kind | None:
    """The kind of task, entered into the ledger; None if nothing says it or two statements contradict each other."""
    for statement in stated:
        if statement.kind != stated[0].kind:
            _contradiction(ledger, stated[0], statement)
            for one in stated:
                if one.setting:
                    ledger.leave(one.setting, "what is said about the task contradicts itself")
            return None
    if not stated:
        help = "say it: `--task sft` or `--task pretrain`"
        message = "nothing in the source says whether this is SFT"
        ledger.report("SFTC703", message, place, help=f"{hint}\n{help}" if hint else help)
        return None
    kind, first = stated[0].kind, stated[0]
    key, value = ("task.is_instruction_dataset", True) if kind == "sft" else ("task.kind", "pretrain")
    for statement in stated:
        if statement.setting:
            ledger.put(statement.setting, key, value=value)
    ledger.fill(key, value, first.comment)
    return kind


def _contradiction(ledger: Ledger, one: Statement, other: Statement) -> None:
    first, second = sorted((one, other), key=lambda item: item.span is None)
    ledger.report(
        "SFTC704",
        f"`{first.text}` says {first.kind}, and `{second.text}` says {second.kind}",
        first.span,
        help="make the two agree; a pretraining run does not become SFT by an option",
        related=(Related(message=f"`{second.text}` stands here", span=second.span),) if second.span else (),
    )
