"""answers.jsonl after a kill and a resume, and what is told of an evaluation's answers."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.answers.answer import DEFINITIONS, FILE, Answer, Evaluated
from sftc.runtime.answers.log import AnswerLog, read
from sftc.runtime.errors import UserError
from sftc.runtime.megatron import Observer, Step
from sftc.runtime.metrics import FILE as METRICS
from sftc.runtime.metrics import is_evaluated, newest
from sftc.runtime.metrics import read as read_metrics
from sftc.runtime.progress import Progress
from sftc.runtime.reporter import Reporter

SCORES: dict[str, float | None] = {"exact_match": 0.421875, "token_accuracy": 0.9034, "perplexity": None, "bleu": 33.1}
SCORES |= {"answers": 64, "unfinished": 2, "politeness": 0.5}
ODD = "\x00 \u2028 \ud83d \r\n </script> é 好"


def answer(row: int, text: str = "9") -> Answer:
    prompt = f"<|im_start|>user\n{row}{ODD}"
    return Answer(
        row=row, question=f"{row}?", prompt=prompt, reference=ODD, answer=text, finish_reason="stop", tokens=2
    )


def write(folder: Path, *iterations: int, resumed_at: int = 0, rows: Sequence[int] = (0, 3, 6)) -> None:
    log = AnswerLog(folder, resumed_at=resumed_at)
    for iteration in iterations:
        log.write(iteration, [answer(row, f"at {iteration}") for row in rows], [True, None, False][: len(rows)])
    log.close()


def places(folder: Path) -> list[tuple[int, int]]:
    return [(line.iteration, line.answer.row) for line in read(folder / FILE)]


def test_a_line_is_as_documented(tmp_path: Path) -> None:
    write(tmp_path, 25)
    AnswerLog(tmp_path, resumed_at=25).write(50, [answer(4)])
    lines = [json.loads(text) for text in (tmp_path / FILE).read_text().split("\n")[:-1]]
    keys = ["iteration", "row", "question", "prompt", "reference", "answer", "finish_reason", "tokens"]
    assert [list(line) for line in lines] == [[*keys, "exact_match"]] * 3 + [keys]
    assert [line.get("exact_match") for line in lines] == [True, None, False, None]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, 25, 50)
    lines = list(read(tmp_path / FILE, {50}))
    assert [line.answer for line in lines] == [answer(row, "at 50") for row in (0, 3, 6)]
    assert [(line.iteration, line.is_compared, line.is_match) for line in lines] == [
        *((50, True, match) for match in (True, None, False))
    ]
    assert list(read(tmp_path / "none.jsonl")) == []


def test_a_resumed_run_forgets_the_answers_of_what_it_trains_again(tmp_path: Path) -> None:
    write(tmp_path, 10, 20, 30)
    write(tmp_path, 30, resumed_at=20)
    assert places(tmp_path) == [(at, row) for at in (10, 20, 30) for row in (0, 3, 6)]


def test_an_evaluation_is_not_written_twice_and_half_of_one_is_completed(tmp_path: Path) -> None:
    write(tmp_path, 10, 10)
    before = (tmp_path / FILE).read_bytes()
    write(tmp_path, 10, resumed_at=10)
    assert (tmp_path / FILE).read_bytes() == before
    (tmp_path / FILE).write_bytes(before[: 2 * len(before) // 3 - 9])
    assert places(tmp_path) == [(10, 0)]
    write(tmp_path, 10, 20, resumed_at=10)
    assert places(tmp_path) == [(at, row) for at in (10, 20) for row in (0, 3, 6)]


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\xff",
        b"[" * 100_000,
        b'{"iteration": 10, "row": 9}',
        b'{"iteration": "10"}',
        b'{"iteration": 10, "row": "9", "question": "", "prompt": "", "reference": "", "answer": "", "tokens": 1}',
        b'{"iteration": 10, "row": 9, "question": "", "prompt": "", "reference": "", "answer": "", "tokens": 1, '
        b'"finish_reason": "<b>"}',
    ],
    ids=["bytes", "deep", "short", "words", "row", "reason"],
)
def test_foreign_lines_are_passed_over(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, 10)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(line + b"\n" + content + line)
    assert places(tmp_path) == [(10, 0), (10, 3), (10, 6)]
    write(tmp_path, 20, resumed_at=10)
    assert places(tmp_path) == [(at, row) for at in (10, 20) for row in (0, 3, 6)]


def evaluated(values: dict[str, float | None], notes: Sequence[str] = ()) -> Evaluated:
    return Evaluated(
        loss=1.5, answers=[answer(3)], matches=[None], values=values, definitions={"bleu": "é"}, notes=notes
    )


def test_the_scores_are_a_line_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boarded: list[Any] = []
    reporter = Reporter(
        tmp_path,
        lengths_in=lambda _: [],
        ranks=1,
        progress=Progress(50),
        board=lambda *scores: boarded.append(scores),
    )
    reporter.begun(0, None, lambda _: 1.0)
    reporter.evaluated(25, loss=1.5, others={"gap": 2.0})
    reporter.answered(25, evaluated(SCORES, notes=["what to know"]))
    reporter.answered(50, evaluated({"exact_match": None, "answers": 1, "unfinished": 0}))
    reporter.ended("complete")
    loss, scores, late = read_metrics(tmp_path / METRICS)
    assert loss == {"iteration": 25, "valid_loss": 1.5, "valid_gap": 2.0}
    assert scores == {"iteration": 25, **{f"valid_{name}": value for name, value in SCORES.items()}}
    assert late == {"iteration": 50, "valid_exact_match": None, "valid_answers": 1, "valid_unfinished": 0}
    assert boarded[0] == (25, SCORES)
    assert places(tmp_path) == [(25, 3), (50, 3)]
    assert json.loads((tmp_path / DEFINITIONS).read_text()) == {"bleu": "é"}
    assert capsys.readouterr().err.splitlines()[1:] == [
        "iteration 25: validation loss 1.5000",
        "iteration 25: exact match 0.422 of 64 answers, token accuracy 0.903, BLEU 33.1",
        "iteration 25: 2 answers reached the limit, `eval.generate.max_new_tokens`",
        "what to know",
        "iteration 50: 1 answer",
    ]
    assert newest(tmp_path / METRICS, "valid_loss")["valid_loss"] == loss
    assert [is_evaluated(tmp_path, at) for at in (25, 50)] == [True, False]  # answers alone are no validation loss


def test_an_evaluation_without_its_answers_is_made_again(tmp_path: Path) -> None:
    """The disk was full, say, when a run that was trained to its end wrote down what it had answered."""

    def started(iteration: int) -> Reporter:
        reporter = Reporter(tmp_path, lengths_in=lambda _: [], ranks=1, progress=Progress(50))
        reporter.begun(iteration, None, lambda _: 1.0)
        return reporter

    def evaluate(reporter: Reporter, iteration: int) -> None:
        reporter.evaluated(iteration, loss=1.5, others={})
        reporter.answered(iteration, evaluated(SCORES))

    first = started(0)
    evaluate(first, 25)
    first.stepped(Step(iteration=50, loss=1.0, learning_rate=0.1, grad_norm=1.0, tokens=1, others={}))
    first.evaluated(50, loss=1.5, others={})
    first.ended("failed")
    assert (is_evaluated(tmp_path, 50), is_evaluated(tmp_path, 50, answers=True)) == (True, False)
    second = started(50)
    evaluate(second, 50)
    second.ended("complete")
    assert is_evaluated(tmp_path, 50, answers=True)
    lines = read_metrics(tmp_path / METRICS)
    kinds = [next(key for key in ("lm_loss", "valid_loss", "valid_answers") if key in line) for line in lines]
    assert kinds == ["valid_loss", "valid_answers", "lm_loss", "valid_loss", "valid_answers"]


@pytest.mark.parametrize(("name", "whose"), [("politeness", "`hooks.answer_metrics`"), ("bleu", "sftc's own")])
def test_a_name_stands_for_one_thing(tmp_path: Path, name: str, whose: str) -> None:
    """Both would be `valid_NAME` of one iteration, here and for the trackers. In sftc eval too."""
    pytest.importorskip("torch")
    from sftc.runtime.answers.rank import _Result

    told = evaluated(SCORES)
    reporter = Reporter(tmp_path, lengths_in=lambda _: [], ranks=1, progress=Progress(50))
    reporter.begun(0, None, lambda _: 1.0)
    reporter.evaluated(25, loss=1.5, others={"gap": 2.0})
    reporter.answered(25, told)
    checkpoint = _Result()
    for observer in (reporter, checkpoint):
        observer.evaluated(50, loss=1.5, others={"gap": 2.0, name: 1.0})
        with pytest.raises(UserError, match=f"`{name}` of `hooks.metrics` is .*{whose}.* `valid_{name}`"):
            observer.answered(50, told)
    reporter.ended("failed")
    assert [line["iteration"] for line in read_metrics(tmp_path / METRICS)] == [25, 25, 50]


def test_ranks_that_report_nothing_do_not_listen() -> None:
    Observer().answered(25, evaluated(SCORES))


BOARD = """
import json, os, sys
from megatron.training import global_vars
from sftc.runtime.megatron import write_scores
from torch.utils.tensorboard import SummaryWriter

write_scores(25, json.loads(sys.argv[2]))  # on a rank that has no writer
global_vars._GLOBAL_TENSORBOARD_WRITER = SummaryWriter(sys.argv[1])
for iteration in (25, 50):
    write_scores(iteration, json.loads(sys.argv[2]))
os._exit(0)  # nothing that is written at the end of a process
"""


@pytest.mark.slow
def test_scores_reach_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("megatron")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    subprocess.run([sys.executable, "-c", BOARD, str(tmp_path), json.dumps(SCORES)], check=True, timeout=300)
    board = events.EventAccumulator(str(tmp_path)).Reload()
    found = {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert found == {
        f"{name} validation": [(at, pytest.approx(value)) for at in (25, 50)]
        for name, value in SCORES.items()
        if value is not None
    }
