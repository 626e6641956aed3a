"""The SFT flag: what is trained on, decided by explicit markers and by nothing else.

Never looks at `finetune_lr`, `checkpoint.finetune`, data paths or file names. Two tables make the decision: the two
markers give the flag, the flag and `task.kind` give the verdict.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Literal

from .diagnostics import Diagnostic, Related, Severity, Span
from .loader import RecipeDocument
from .suggest import closest

RECOMMENDED = "is_instruction_dataset"
ALTERNATIVE = "is_sft"
MARKERS = (RECOMMENDED, ALTERNATIVE)

type Kind = Literal["sft", "pretrain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResolution:
    """The decision. `marker` is the dotted key that made it; None if only `task.kind` speaks.

    `reason` is the text for people, without places; `pointers` name the recipe values that it rests on.
    """

    kind: Kind
    marker: str | None
    reason: str
    pointers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For plan.json, which names no lines."""
        return {"kind": self.kind, "marker": self.marker, "reason": self.reason, "pointers": list(self.pointers)}


class _Flag(Enum):
    ABSENT = auto()
    YES = auto()
    NO = auto()
    TORN = auto()


class _Verdict(Enum):
    SFT = auto()
    PRETRAIN = auto()
    NO_FLAG = auto()
    KIND_IS_NO_FLAG = auto()
    MARKERS_DISAGREE = auto()
    KIND_DISAGREES = auto()


# (is_instruction_dataset, is_sft); None is absent.
_FLAGS: dict[tuple[bool | None, bool | None], _Flag] = {
    (None, None): _Flag.ABSENT,
    (None, True): _Flag.YES,
    (True, None): _Flag.YES,
    (True, True): _Flag.YES,
    (None, False): _Flag.NO,
    (False, None): _Flag.NO,
    (False, False): _Flag.NO,
    (True, False): _Flag.TORN,
    (False, True): _Flag.TORN,
}

_VERDICTS: dict[tuple[_Flag, str | None], _Verdict] = {
    (_Flag.ABSENT, None): _Verdict.NO_FLAG,
    (_Flag.ABSENT, "sft"): _Verdict.KIND_IS_NO_FLAG,
    (_Flag.ABSENT, "pretrain"): _Verdict.PRETRAIN,
    (_Flag.YES, None): _Verdict.SFT,
    (_Flag.YES, "sft"): _Verdict.SFT,
    (_Flag.YES, "pretrain"): _Verdict.KIND_DISAGREES,
    (_Flag.NO, None): _Verdict.PRETRAIN,
    (_Flag.NO, "sft"): _Verdict.KIND_DISAGREES,
    (_Flag.NO, "pretrain"): _Verdict.PRETRAIN,
    (_Flag.TORN, None): _Verdict.MARKERS_DISAGREE,
    (_Flag.TORN, "sft"): _Verdict.MARKERS_DISAGREE,
    (_Flag.TORN, "pretrain"): _Verdict.MARKERS_DISAGREE,
}


def resolve_task(document: RecipeDocument) -> tuple[TaskResolution | None, list[Diagnostic]]:
    """The task of the recipe, or why there is none; a plain next-token task comes with a warning.

    Returns neither a task nor a diagnostic where the loader or the schema has reported the values it would rest on.
    """
    task = document.data.get("task")
    task = {} if task is None else task  # `task:` with nothing below it says as much as no `task:`
    if not isinstance(task, dict) or _reported_elsewhere(document, task):
        return None, []
    kind = task.get("kind")
    verdict = _VERDICTS[_FLAGS[task.get(RECOMMENDED), task.get(ALTERNATIVE)], kind]
    stated = [_Statement(document, name) for name in (*MARKERS, "kind") if name in task]
    if verdict is _Verdict.SFT:
        return _sft(stated), []
    if verdict is _Verdict.PRETRAIN:
        return _pretrain(stated)
    if verdict is _Verdict.MARKERS_DISAGREE:
        return None, [_disagreement("SFTC302", stated[1], stated[0], "keep the one that is meant and remove the other")]
    if verdict is _Verdict.KIND_DISAGREES:
        help = "make the two agree: `kind: sft` with the flag true, `kind: pretrain` with the flag false or absent"
        return None, [_disagreement("SFTC303", stated[-1], stated[0], help)]
    return None, [_no_flag(document, verdict)]


class _Statement:
    """One line of the task section that bears on the decision."""

    def __init__(self, document: RecipeDocument, name: str) -> None:
        value = document.data["task"][name]
        self.name = name
        self.pointer = f"/task/{name}"
        self.value = value
        self.text = f"task.{name}: {str(value).lower() if isinstance(value, bool) else value}"
        place = document.places[self.pointer]
        key = place.key or place.value
        self.span = Span(
            file=key.file,
            line=key.line,
            column=key.column,
            end_line=place.value.end_line,
            end_column=place.value.end_column,
        )


def _reported_elsewhere(document: RecipeDocument, task: dict[str, object]) -> bool:
    """Values that are not what they should be, and misspelled or misplaced markers: each has its own report."""
    if "/task" in document.broken or "/task/<<" in document.broken or "/<<" in document.broken:
        return True
    for name in MARKERS:
        if f"/task/{name}" in document.broken or not isinstance(task.get(name, True), bool):
            return True
    if "/task/kind" in document.broken or task.get("kind", "sft") not in ("sft", "pretrain"):
        return True
    slips = [name for name in task if name not in (*MARKERS, "kind") and closest(name, (*MARKERS, "kind"))]
    strays = [name for name in document.data if name in MARKERS or (closest(name, ("task",)) and name != "task")]
    return bool(slips or strays)


def _sft(stated: list[_Statement]) -> TaskResolution:
    deciding = next(one for one in stated if one.name in MARKERS)
    return TaskResolution(
        kind="sft",
        marker=f"task.{deciding.name}",
        reason=f"`{deciding.text}`",
        pointers=tuple(one.pointer for one in stated),
    )


def _pretrain(stated: list[_Statement]) -> tuple[TaskResolution, list[Diagnostic]]:
    deciding = stated[0]
    task = TaskResolution(
        kind="pretrain",
        marker=f"task.{deciding.name}" if deciding.name in MARKERS else None,
        reason=f"`{deciding.text}`",
        pointers=tuple(one.pointer for one in stated),
    )
    warning = Diagnostic(
        code="SFTC305",
        severity=Severity.WARNING,
        message=f"this is not SFT: `{deciding.text}` compiles a plain next-token step, with the loss on every token",
        span=deciding.span,
        pointer=deciding.pointer,
        help=f"for SFT write `{RECOMMENDED}: true` under `task`",
    )
    return task, [warning]


def _disagreement(code: str, one: _Statement, other: _Statement, help: str) -> Diagnostic:
    apart = one.span.file != other.span.file
    here, there = (
        f"at {side.span.file}:{side.span.line}" if apart else f"on line {side.span.line}" for side in (one, other)
    )
    return Diagnostic(
        code=code,
        severity=Severity.ERROR,
        message=f"`{one.text}` {here} contradicts `{other.text}` {there}",
        span=one.span,
        pointer=one.pointer,
        help=help,
        related=(Related(message=f"`{other.text}` stands here", span=other.span),),
    )


def _no_flag(document: RecipeDocument, verdict: _Verdict) -> Diagnostic:
    section = document.places.get("/task")
    kind = document.places.get("/task/kind")
    if verdict is _Verdict.KIND_IS_NO_FLAG and kind:
        code, span, pointer = "SFTC304", kind.value, "/task/kind"
        message = f"`task.kind: sft` is not the SFT flag, and neither `{RECOMMENDED}` nor `{ALTERNATIVE}` is given"
    else:
        code, pointer = "SFTC301", "/task" if section else ""
        span = section.key or section.value if section else _first_character(document)
        message = (
            f"the recipe does not say whether it is SFT: neither `task.{RECOMMENDED}` nor `task.{ALTERNATIVE}` is given"
        )
    if section and section.key:
        line = section.key.line
        help = f"for SFT add this line under `task:` (line {line} of {span.file}):\n  {RECOMMENDED}: true"
    else:
        help = f"for SFT add these lines to {span.file}:\ntask:\n  {RECOMMENDED}: true"
    if code == "SFTC301":
        help += f"\nfor plain next-token training write `{RECOMMENDED}: false` instead"
    return Diagnostic(code=code, severity=Severity.ERROR, message=message, span=span, pointer=pointer, help=help)


def _first_character(document: RecipeDocument) -> Span:
    root = document.places[""].value
    return Span(file=root.file, line=root.line, column=root.column, end_line=root.line, end_column=root.column)
