"""Scores and answers of a run as the page has them, before they are written as HTML."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_runs import write_run

from sftc.runtime.answers.answer import Answer
from sftc.runtime.answers.log import AnswerLog
from sftc.runtime.runs.answers import answers, evenly
from sftc.runtime.runs.commands import documents, table
from sftc.runtime.runs.page import page
from sftc.runtime.runs.run import read_run


def answer(row: int, text: str = "a", question: str = "?") -> Answer:
    return Answer(
        row=row, question=question, prompt="p", reference="r", answer=text, finish_reason="stop", tokens=len(text)
    )


def scored(folder: Path, *lines: dict[str, Any], definitions: str = "{}") -> Path:
    """A run in whose metrics these lines stand besides."""
    write_run(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    (folder / "answers.jsonl").touch()
    (folder / "scores.json").write_text(definitions)
    return folder


def test_shares_are_drawn_from_0_to_1_and_each_score_has_its_definition(tmp_path: Path) -> None:
    scores = {"exact_match": 0.1, "rouge1": 0.3, "rouge2": 0.2, "rougeL": 0.25, "mine": 7.0, "bleu": 12.0}
    lines = [
        {"iteration": at, "valid_answers": 4, "valid_unfinished": 0, **{f"valid_{name}": value for name, value in some}}
        for at, some in ((0, scores.items()), (10, scores.items()))
    ]
    run = read_run(scored(tmp_path / "run", *lines, definitions='{"exact_match": "same", "rouge": "F", "bleu": 3}'))
    shown = page(run)
    found = {plot["title"]: plot for plot in shown["scores"]}
    assert list(found) == ["Exact match", "BLEU", "ROUGE", "mine"]
    assert [tick["text"] for tick in found["Exact match"]["up"]] == ["0", "0.5", "1"]
    assert [tick["text"] for tick in found["BLEU"]["up"]] == ["0", "50", "100"]
    assert [one["name"] for one in found["ROUGE"]["series"]] == ["ROUGE-1", "ROUGE-2", "ROUGE-L"]
    assert [plot["definition"] for plot in found.values()] == ["same", "3", "F", ""]
    # All plots share their axis, and an evaluation before the first iteration lies on it.
    assert {plot["low"] for plot in [*shown["plots"], *shown["scores"]]} == {0}
    assert len(shown["plots"]) == 5
    assert ("exact match", "0.1", "best 0.1, iteration 0") in [tuple(card.values()) for card in shown["cards"]]


def test_a_score_that_there_is_nothing_to_take_of_leaves_a_gap(tmp_path: Path) -> None:
    lines = [{"iteration": at, "valid_answers": 2, "valid_exact_match": None} for at in (5, 10)]
    shown = page(read_run(scored(tmp_path / "run", *lines)))
    (plot,) = shown["scores"]
    assert (plot["empty"], len(plot["missing"])) == ("no value is finite", 2)
    assert "exact match" not in [card["label"] for card in shown["cards"]]


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_torn_definitions_are_named(tmp_path: Path, text: str) -> None:
    run = read_run(scored(tmp_path / "run", {"iteration": 5, "valid_answers": 2, "valid_bleu": 3}, definitions=text))
    shown = page(run)
    assert [plot["definition"] for plot in shown["scores"]] == [""]
    assert "scores.json cannot be read" in shown["problems"][0]


def test_the_scores_of_an_iteration_do_not_hide_its_loss(tmp_path: Path) -> None:
    folder = scored(tmp_path / "run", {"iteration": 4, "valid_answers": 2, "valid_exact_match": 0.25})
    run = read_run(folder)
    assert (run.valid_loss, run.valid_iteration, run.exact_match) == (0.5, 4, 0.25)
    assert documents([run])[0]["exact_match"] == 0.25
    assert table([run]).splitlines()[1].split()[5] == "0.250"
    (folder / "metrics.jsonl").write_text('{"iteration": 4, "valid_answers": 2}\n')  # exact match was not asked for
    assert read_run(folder).exact_match is None


def test_a_question_stands_once_with_the_answers_of_all_evaluations(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, resumed_at=0)
    for iteration in range(0, 80, 10):
        log.write(iteration, [answer(row, f"at {iteration}") for row in (2, 5)])
    log.close()
    shown = answers(tmp_path)
    assert [one["text"] for one in shown["evaluations"]] == [
        *(f"iteration {at}: 2 answers" for at in (0, 10, 20, 40, 50, 70))
    ]
    assert shown["left_out"] == "Shown are 6 of 8 evaluations; answers.jsonl holds 4 more answers."
    assert [len(one["cells"]) for one in shown["conversations"]] == [2 + 6] * 2
    first = shown["conversations"][0]["cells"]
    assert [cell["name"] for cell in first[:3]] == ["Question", "Reference", "Answer"]
    assert [cell["text"] for cell in first if not cell["is_hidden"]] == ["?", "r", "at 70"]
    assert {cell["verdict"] for cell in first} == {""}


def test_conversations_that_the_newest_evaluation_has_not_come_last_and_are_hidden(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, resumed_at=0)
    log.write(10, [answer(1, question="old"), answer(2)])
    log.write(20, [answer(1, question="new"), answer(2)])
    log.close()
    shown = answers(tmp_path)["conversations"]
    assert [(one["cells"][0]["text"], one["is_hidden"]) for one in shown] == [
        ("new", False),
        ("?", False),
        ("old", True),
    ]


def test_no_answer_at_all(tmp_path: Path) -> None:
    assert answers(tmp_path) == {}
    (tmp_path / "answers.jsonl").write_text('{"iteration": 3')
    assert answers(tmp_path) == {}


def test_a_text_without_end_is_cut_on_the_page_and_said_so(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, resumed_at=0)
    log.write(10, [answer(1, "x" * 1_000_000)])
    log.close()
    (one,) = answers(tmp_path)["conversations"]
    cell = one["cells"][-1]
    assert (len(cell["text"]), cell["more"]) == (50_000, "950,000 more characters are in answers.jsonl")


@pytest.mark.parametrize(
    ("count", "most", "places"), [(3, 6, [0, 1, 2]), (6, 6, [*range(6)]), (11, 6, [0, 2, 4, 6, 8, 10]), (0, 6, [])]
)
def test_places_are_spread_evenly(count: int, most: int, places: list[int]) -> None:
    assert evenly(count, most) == places


@pytest.mark.parametrize("count", range(51, 400, 7))
def test_spread_places_differ_and_reach_both_ends(count: int) -> None:
    places = evenly(count, 50)
    assert (len(set(places)), places[0], places[-1]) == (50, 0, count - 1)
