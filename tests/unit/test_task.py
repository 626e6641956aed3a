"""The SFT flag: nine cells of the two markers, times the three of `task.kind`."""

import pytest

from sftc.compiler.diagnostics import Diagnostic, Severity
from sftc.compiler.loader import load
from sftc.compiler.source import SourceFile
from sftc.compiler.task import TaskResolution, resolve_task


def resolve(text: str) -> tuple[TaskResolution | None, list[Diagnostic]]:
    document, _ = load(SourceFile(name="r.yaml", text=text, sha256=""))
    assert document is not None
    return resolve_task(document)


def recipe(instruction: bool | None, sft: bool | None, kind: str | None) -> str:
    lines = ["name: x", "task:"]
    if kind is not None:
        lines.append(f"  kind: {kind}")
    if instruction is not None:
        lines.append(f"  is_instruction_dataset: {str(instruction).lower()}")
    if sft is not None:
        lines.append(f"  is_sft: {str(sft).lower()}")
    return "\n".join(lines if len(lines) > 2 else [*lines[:1], "task: {}"]) + "\n"


A, T, F = None, True, False
# (is_instruction_dataset, is_sft): what comes out without kind, with kind: sft, with kind: pretrain.
TRUTH = {
    (A, A): ("SFTC301", "SFTC304", "pretrain"),
    (A, T): ("sft", "sft", "SFTC303"),
    (A, F): ("pretrain", "SFTC303", "pretrain"),
    (T, A): ("sft", "sft", "SFTC303"),
    (T, T): ("sft", "sft", "SFTC303"),
    (T, F): ("SFTC302", "SFTC302", "SFTC302"),
    (F, A): ("pretrain", "SFTC303", "pretrain"),
    (F, T): ("SFTC302", "SFTC302", "SFTC302"),
    (F, F): ("pretrain", "SFTC303", "pretrain"),
}
CASES = [
    (instruction, sft, kind, outcome)
    for (instruction, sft), outcomes in TRUTH.items()
    for kind, outcome in zip((None, "sft", "pretrain"), outcomes, strict=True)
]


@pytest.mark.parametrize(("instruction", "sft", "kind", "outcome"), CASES)
def test_truth_table(instruction: bool | None, sft: bool | None, kind: str | None, outcome: str) -> None:
    task, diagnostics = resolve(recipe(instruction, sft, kind))
    if outcome.startswith("SFTC"):
        assert task is None
        assert [(item.code, item.severity) for item in diagnostics] == [(outcome, Severity.ERROR)]
    elif outcome == "sft":
        assert task is not None
        assert task.kind == "sft"
        assert task.marker == ("task.is_instruction_dataset" if instruction else "task.is_sft")
        assert diagnostics == []
    else:
        assert task is not None
        assert task.kind == "pretrain"
        assert [(item.code, item.severity) for item in diagnostics] == [("SFTC305", Severity.WARNING)]


def test_table_is_complete() -> None:
    assert len(CASES) == 27


def test_recommended_marker_is_the_reason_when_both_are_true() -> None:
    task, _ = resolve("task:\n  is_sft: true\n  is_instruction_dataset: true\n")
    assert task is not None
    assert task.reason == "`task.is_instruction_dataset: true`"
    assert task.pointers == ("/task/is_instruction_dataset", "/task/is_sft")


def test_pretrain_by_kind_alone_has_no_marker() -> None:
    task, _ = resolve("task: {kind: pretrain}\n")
    assert task is not None
    assert (task.marker, task.reason, task.pointers) == (None, "`task.kind: pretrain`", ("/task/kind",))


@pytest.mark.parametrize(
    "order", [("is_sft: true", "is_instruction_dataset: false"), ("is_instruction_dataset: true", "is_sft: false")]
)
def test_contradiction_names_both_lines(order: tuple[str, str]) -> None:
    _, (item,) = resolve(f"name: x\ntask:\n  {order[0]}\n\n  {order[1]}\n")
    assert "on line 3" in item.message
    assert "on line 5" in item.message
    assert item.span is not None
    spans = [item.span, *(one.span for one in item.related)]
    assert sorted(span.line for span in spans if span) == [3, 5]


@pytest.mark.parametrize(
    "decoys",
    [
        "finetune_lr: 1e-5",
        "checkpoint: {finetune: true}",
        "data: {train_data_path: data/sft/instruction_dataset.jsonl, format: messages}",
        "name: sft\ndescription: SFT on instructions",
    ],
)
@pytest.mark.parametrize("section", ["", "task: {}\n"])
def test_nothing_else_stands_in_for_the_flag(decoys: str, section: str) -> None:
    task, diagnostics = resolve(f"{decoys}\n{section}")
    assert task is None
    assert [item.code for item in diagnostics] == ["SFTC301"]


def test_missing_flag_prints_the_line_to_add_and_where() -> None:
    _, (item,) = resolve("name: x\n\ntask:\n  {}\n")
    assert item.help is not None
    assert "  is_instruction_dataset: true" in item.help.split("\n")
    assert "line 3 of r.yaml" in item.help
    assert item.span is not None
    assert (item.span.line, item.span.column) == (3, 1)


def test_missing_section_is_printed_whole() -> None:
    _, (item,) = resolve("name: x\n")
    assert "task:\n  is_instruction_dataset: true" in (item.help or "")


@pytest.mark.parametrize("section", ["task:\n", "task: {}\n", ""])
def test_following_the_help_gives_sft(section: str) -> None:
    added = section.replace("{}", "").rstrip() or "task:"
    task, diagnostics = resolve(f"name: x\n{added}\n  is_instruction_dataset: true\n")
    assert diagnostics == []
    assert task is not None
    assert task.kind == "sft"


@pytest.mark.parametrize(
    "section",
    [
        "task: {is_sft: 1}",
        'task: {is_sft: "true"}',
        "task: {is_sft: yes}",
        "task: {is_sft: null}",
        "task: {kind: sftt}",
        "task: [is_sft]",
        "task: {is_stf: true}",
        "task: {is_instruction_datset: true}",
        "tsak: {is_sft: true}",
        "is_sft: true",
        "task: {<<: {is_sft: true}}",
    ],
)
def test_what_the_loader_or_the_schema_reports_gets_no_second_report(section: str) -> None:
    assert resolve(f"name: x\n{section}\n") == (None, [])


def test_plan_entry_holds_no_lines() -> None:
    task, _ = resolve("\n\n\ntask: {is_sft: true}\n")
    assert task is not None
    assert task.to_json() == {
        "kind": "sft",
        "marker": "task.is_sft",
        "reason": "`task.is_sft: true`",
        "pointers": ["/task/is_sft"],
    }
