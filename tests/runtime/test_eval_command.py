"""What `sftc eval` refuses before any rank starts, and what it asks for. What there is of a run here is made up."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftc.runtime.answers import commands
from sftc.runtime.answers.commands import Asked, evaluate
from sftc.runtime.answers.settings import Settings
from sftc.runtime.errors import UserError

VALUES: Mapping[str, Any] = {
    "task.kind": "sft",
    "data.loss_on": "assistant",
    "data.loss_on_reasoning": True,
    "checkpoint.save": "runs/made/checkpoints",
    "logging.run_path": "runs/made",
    "train.seed": 5,
}
GENERATE = {"samples": 9, "when": "end", "max_new_tokens": 7, "batch_size": 2, "temperature": 0, "top_k": None}
GENERATE |= {"top_p": None, "seed": None, "answer_pattern": None, "metrics": ["bleu"]}
SECTION = {f"eval.generate.{name}": value for name, value in GENERATE.items()}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any] | None]:
    """Evaluates a made-up run of which some values are others. Its ranks are fakes, which note what they were told."""

    def evaluated(root: Path = tmp_path, values: Mapping[str, Any] = {}, **asked: Any) -> dict[str, Any] | None:
        bundle = SimpleNamespace(value={**VALUES, **values}.get, name="made", path=tmp_path)
        monkeypatch.setattr(commands, "read_run", lambda _: (bundle, root))
        monkeypatch.setattr(commands, "checkpoint_of", lambda *_: (tmp_path, 30))
        monkeypatch.setattr(commands, "world_size", lambda _: 1)
        if "data" not in asked:
            monkeypatch.setattr(commands, "_store", lambda *_: (tmp_path, "rows"))

        def ranks(job: Path, _: int, output: Path) -> None:
            assert not (output / "eval.json").exists(), "of an earlier evaluation"
            (output / "eval.json").write_text(json.dumps({"job": json.loads(job.read_text())}))

        monkeypatch.setattr(commands, "_run_ranks", ranks)
        return evaluate(Asked(run_path=tmp_path, **asked))

    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "answers.jsonl").write_text("what the training wrote\n")
    return evaluated


def test_files_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    wanted = tmp_path / "iteration-30-rows"
    for data, name in (
        ("`a/rows.jsonl`", ""),
        ("`b/rows.jsonl`", "-2"),
        ("`c/rows.jsonl`", "-3"),
        ("`b/rows.jsonl`", "-2"),
    ):
        folder = commands.place(wanted, data)
        assert folder.name == f"{wanted.name}{name}"
        folder.mkdir(exist_ok=True)
        (folder / "eval.json").write_text(json.dumps({"data": data}))


def test_the_answers_of_the_training_are_not_replaced(
    run: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(output=tmp_path) is None
    assert "is a run, and its own `answers.jsonl` would be replaced" in capsys.readouterr().err
    assert (tmp_path / "answers.jsonl").read_text() == "what the training wrote\n"


def test_what_an_earlier_evaluation_left_is_not_taken_for_this_one(run: Callable[..., Any], tmp_path: Path) -> None:
    first, second = run(), run(samples=3)
    assert first["folder"] == second["folder"] == str(tmp_path / "eval/iteration-30")
    assert [found["job"]["samples"] for found in (first, second)] == [None, 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answer_pattern": "A("}, "`A(` is no regular expression"),
        ({"answer_pattern": "a{99999999999999}"}, "is no regular expression: the repetition number is too large"),
        ({"answer_pattern": "(a)(b)"}, "`(a)(b)` has 2 groups"),
        ({"answer_pattern": ""}, "matches the empty text"),
        ({"answer_pattern": r"\b"}, "matches the empty text"),
        ({"output": Path("/dev/null")}, "the answers cannot be written to `/dev/null`: File exists"),
        ({"root": Path("/nowhere"), "data": Path("rows.jsonl")}, "was started in `/nowhere`, which is not there"),
        ({"values": {"task.kind": "pretrain"}}, "was trained on every token"),
        ({"values": {"data.loss_on": "all"}}, "was trained on every token"),
        ({"values": {"data.loss_on_reasoning": False}}, "was trained on answers without their reasoning"),
        ({"data": Path("nothing.jsonl")}, "there is no `nothing.jsonl`\nhelp: --data names a file of rows"),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(
    run: Callable[..., Any], capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert run(**changes) is None
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("help", ["mend these rows, or write `data.on_bad_row: skip`", "see `tokenizer.path`"])
def test_rows_of_a_file_are_no_matter_of_the_recipe(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], help: str
) -> None:
    def prepare(*_: object) -> None:
        raise UserError("2 of 5 rows cannot be used", help)

    monkeypatch.setattr(commands, "prepare", prepare)
    monkeypatch.setattr(commands, "replace", lambda settings, **_: settings)
    monkeypatch.setattr(commands.DataSettings, "from_plan", lambda *_: None)
    assert run(data=Path(__file__)) is None
    ours = f"`{__file__}` is read as the rows of the run were: mend them, or leave them out of it"
    said = ours if "rows" in help else help
    assert capsys.readouterr().err.endswith(f"error: 2 of 5 rows cannot be used\nhelp: {said}\n")


def test_what_python_warns_of_in_a_pattern_is_no_matter(run: Callable[..., Any]) -> None:
    with warnings.catch_warnings(action="error"):
        assert run(answer_pattern="[[x]+")["job"]["answer_pattern"] == "[[x]+"


def settings(values: Mapping[str, Any], **own: Any) -> Settings:
    def value(key: str) -> Any:
        if key not in values:
            raise UserError(f"nothing of `{key}`")
        return values[key]

    return Settings.of_checkpoint(value, 4, **{"max_new_tokens": None, "answer_pattern": None, **own})


def test_a_checkpoint_is_asked_as_its_run_was() -> None:
    found = settings({**VALUES, **SECTION})
    assert (found.samples, found.max_new_tokens, found.metrics, found.seed) == (4, 7, ("bleu",), 5)
    assert settings({**VALUES, **SECTION}, max_new_tokens=3).max_new_tokens == 3


def test_a_run_of_an_older_sftc_is_asked_by_the_defaults() -> None:
    found = settings(VALUES)
    assert found == Settings.usual(VALUES.__getitem__, 4) == settings({**VALUES, "eval.generate.samples": None})


def test_a_pattern_is_not_given_in_vain() -> None:
    found = settings({**VALUES, **SECTION}, answer_pattern="a+")
    assert (found.answer_pattern, found.metrics) == ("a+", ("exact_match", "bleu"))


# In the place of torchrun: one that speaks as its ranks do, through the file of the command, and fails.
RANKS = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from sftc.runtime.answers import commands
from sftc.runtime.progress import complain

def run(*_, **__):
    os.write(os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND), b"error: of a rank, in many words\\n")
    Path("failed").touch()
    return SimpleNamespace(returncode=1)

commands.subprocess.run = run
try:
    commands._run_ranks(Path("job.json").absolute(), 1, Path("out"))
except commands.UserError as error:
    complain(error)
"""


def test_what_ranks_say_is_not_written_over(tmp_path: Path) -> None:
    """Where stderr is a file that the shell has not opened for appending."""
    with (tmp_path / "said").open("w") as file:
        subprocess.run([sys.executable, "-c", RANKS], stderr=file, cwd=tmp_path, check=True)
    first, second = (tmp_path / "said").read_text().splitlines()
    assert first == "error: of a rank, in many words"
    assert second.startswith("error: the evaluation failed")
