"""W&B and MLflow: what a run sends them, also over restarts, by the real libraries without a network."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from build_dir import write_build, write_pointer
from ranks import LIMIT, Ended, torchrun, train
from wandb_files import files, histories, records

from sftc.runtime import trackers
from sftc.runtime.answers.answer import Answer
from sftc.runtime.answers.log import AnswerLog
from sftc.runtime.bundle import read_bundle
from sftc.runtime.errors import UserError
from sftc.runtime.metrics import Metrics, read
from sftc.runtime.trackers import asked
from sftc.runtime.trackers.follow import Follower

VALUES = {
    "logging.wandb.project": "tests",
    "logging.wandb.entity": None,
    "logging.wandb.name": None,
    "logging.wandb.group": None,
    "logging.wandb.tags": ["tiny"],
    "logging.wandb.mode": "offline",
    "logging.mlflow.experiment": "tests",
    "logging.mlflow.tracking_uri": "sqlite:///tracked here/mlflow.db",
    "logging.mlflow.run_name": "by another name",
    "logging.mlflow.tags": {"team": "us"},
}

# A start of its own: W&B leaves variables behind by which a later process would find this one's service.
FOLLOW = """
from pathlib import Path
from sftc.runtime import trackers
from sftc.runtime.bundle import read_bundle
for follower in trackers.following(read_bundle(Path("build")), Path("run"), print):
    follower.begin()
    follower.close("complete")
"""

NAMES = (("train/lm_loss", "lm_loss"), ("valid/loss", "valid_loss"))  # there, and in metrics.jsonl


class Fake:
    """A tracker that keeps what it is given, or fails."""

    name, key = "Fake", "fake"

    def __init__(self, *, failing_at: int | None = None) -> None:
        self.failing_at = failing_at
        self.given: list[tuple[int, Mapping[str, float]]] = []
        self.opened_with: str | None = None
        self.outcome: str | None = None

    def open(self, identity: str | None) -> str:
        self.opened_with = identity
        return identity or "one"

    def where(self) -> str:
        return "nowhere"

    def held(self) -> Mapping[str, int] | None:
        return None

    def log(self, lines: Sequence[tuple[int, Mapping[str, float]]], *, before: int) -> None:  # noqa: ARG002
        if any(iteration == self.failing_at for iteration, _ in lines):
            raise ConnectionError("no route to https://me:secret@host/\nand more")
        self.given += lines

    def close(self, outcome: str) -> None:
        self.outcome = outcome


def follow(
    folder: Path, tracker: Fake, iterations: range, *, manifest: str = "m", outcome: str = "complete"
) -> list[str]:
    """One start, which trains these iterations; what was said."""
    said: list[str] = []
    metrics = Metrics(folder, resumed_at=iterations.start - 1)
    follower = Follower(tracker, folder, manifest=manifest, say=said.append)
    follower.begin()
    for iteration in iterations:
        follower.send(metrics.write(iteration=iteration, lm_loss=1 / iteration))
        if iteration % 3 == 0:
            follower.send(metrics.write(iteration=iteration, valid_loss=2 / iteration))
    metrics.close()
    follower.close(outcome)
    return said


def test_a_restart_goes_on_and_sends_nothing_twice(tmp_path: Path) -> None:
    first, second = Fake(), Fake()
    assert follow(tmp_path, first, range(1, 6), outcome="stopped") == ["Fake follows this run: nowhere"]
    assert follow(tmp_path, second, range(4, 8)) == ["Fake follows this run: nowhere"]
    assert (first.opened_with, second.opened_with) == (None, "one")
    assert (first.outcome, second.outcome) == ("stopped", "complete")
    train_lines = [iteration for iteration, line in first.given + second.given if "train/lm_loss" in line]
    assert train_lines == [1, 2, 3, 4, 5, 6, 7]
    assert [iteration for iteration, line in first.given + second.given if "valid/loss" in line] == [3, 6]


def test_another_build_in_the_same_directory_is_another_run(tmp_path: Path) -> None:
    follow(tmp_path, Fake(), range(1, 3), manifest="old")
    tracker = Fake()
    follow(tmp_path, tracker, range(1, 3), manifest="new")
    assert tracker.opened_with is None
    assert [iteration for iteration, _ in tracker.given] == [1, 2]


def test_a_failing_tracker_is_said_once_and_catches_up_at_the_next_start(tmp_path: Path) -> None:
    said = follow(tmp_path, Fake(failing_at=4), range(1, 8))
    why = "ConnectionError: no route to https://...@host/"
    assert said == [
        "Fake follows this run: nowhere",
        f"WARNING: Fake gets no more of this run ({why}); metrics.jsonl has it all",
    ]
    sent = json.loads((tmp_path / "fake.json").read_text())["train"]
    assert sent < 4
    tracker = Fake()
    follow(tmp_path, tracker, range(8, 10))
    lines = [iteration for iteration, line in tracker.given if "train/lm_loss" in line]
    assert lines == list(range(sent + 1, 10))


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    tracker = Fake()
    metrics = Metrics(tmp_path, resumed_at=0)
    metrics.write(iteration=1, lm_loss=float("nan"), grad_norm=2.0)
    follower = Follower(tracker, tmp_path, manifest="m", say=print)
    follower.begin()
    follower.close("complete")
    assert tracker.given == [(1, {"train/grad_norm": 2.0})]


def evaluate(folder: Path, *iterations: int) -> None:
    """Evaluations with two answers each, as they stand in the run directory."""
    log, metrics = AnswerLog(folder, resumed_at=10**9), Metrics(folder, resumed_at=10**9)
    for iteration in iterations:
        answers = [
            Answer(row=row, question="?", prompt="", reference="é", answer="<b>", finish_reason="stop", tokens=row)
            for row in (1, 2)
        ]
        log.write(iteration, answers, [True, None])
        metrics.write(iteration=iteration, valid_loss=2.0)
        metrics.write(iteration=iteration, valid_exact_match=0.5, valid_perplexity=None, valid_answers=2)
    log.close()
    metrics.close()


def test_scores_of_answers_are_sent_once_beside_the_loss(tmp_path: Path) -> None:
    evaluate(tmp_path, 0, 25)
    given = []
    for _ in range(2):
        tracker = Fake()
        follower = Follower(tracker, tmp_path, manifest="m", say=print)
        follower.begin()
        follower.close("stopped")
        given += tracker.given
        evaluate(tmp_path, 50)
    scores = {"valid/exact_match": 0.5, "valid/answers": 2}
    assert given == [(at, line) for at in (0, 25, 50) for line in ({"valid/loss": 2.0}, scores)]


def test_a_state_from_before_there_were_answers(tmp_path: Path) -> None:
    evaluate(tmp_path, 25, 50)
    state = {"manifest": "m", "id": "one", "train": 50, "valid": 25, "lines": 3}
    (tmp_path / "fake.json").write_text(json.dumps(state))
    tracker = Fake()
    follower = Follower(tracker, tmp_path, manifest="m", say=print)
    follower.begin()
    follower.close("complete")
    assert tracker.opened_with == "one"
    assert [(at, "valid/loss" in line) for at, line in tracker.given] == [(25, False), (50, True), (50, False)]


@pytest.mark.slow
def test_answers_are_a_table_in_wandb_and_a_file_in_mlflow(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    write_build(tmp_path / "build", values=VALUES)
    run_path = tmp_path / "run"
    for iterations in ((0, 25), (50,)):
        evaluate(run_path, *iterations)
        command = [sys.executable, "-c", FOLLOW]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
        assert (done.returncode, "WARNING" in done.stdout) == (0, False), done
    rows = [row for start in histories(run_path) for row in start]
    assert [(row["iteration"], row.get("valid/loss"), row.get("valid/exact_match")) for row in rows] == [
        *((at, *values) for at in (0, 25, 50) for values in ((2.0, None), (None, 0.5)))
    ]
    tables = [
        json.loads(path.read_text()) for path in run_path.glob("wandb/offline-run-*/files/media/table/answers_*.json")
    ]
    assert len(tables) == 3
    assert tables[0]["columns"] == ["row", "question", "reference", "answer", "exact_match", "finish_reason", "tokens"]
    assert tables[0]["data"] == [[1, "?", "é", "<b>", True, "stop", 1], [2, "?", "é", "<b>", None, "stop", 2]]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/tracked here/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    history = client.get_metric_history(run.info.run_id, "valid/exact_match")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.5), (25, 0.5), (50, 0.5)]
    assert run.info.status == "FINISHED"
    (kept,) = tmp_path.glob("tracked here/mlruns/*/artifacts/answers.jsonl")
    assert kept.read_bytes() == (run_path / "answers.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build", "run", "tracked here"]
    answers = client.list_artifacts(run.info.run_id)
    assert [(one.path, one.file_size) for one in answers] == [("answers.jsonl", kept.stat().st_size)]


@pytest.mark.slow
def test_a_store_of_files_keeps_its_artifacts_itself(tmp_path: Path) -> None:
    """Also where launch.sh has made its directory for a container."""
    pytest.importorskip("mlflow")
    values = {**VALUES, "logging.wandb.project": None, "logging.mlflow.tracking_uri": "file:tracked%20here"}
    write_build(tmp_path / "build", values=values)
    (tmp_path / "tracked here").mkdir()
    evaluate(tmp_path / "run", 0)
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (done.returncode, "WARNING" in done.stdout) == (0, False), done
    assert len(list(tmp_path.glob("tracked here/*/*/artifacts/answers.jsonl"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build", "run", "tracked here"]


@pytest.mark.parametrize("library", ["wandb", "mlflow"])
def test_a_missing_library_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    bundle = read_bundle(write_build(tmp_path / "build", values=VALUES))
    monkeypatch.setattr(asked, "find_spec", lambda name: None if name == library else name)
    with pytest.raises(UserError) as caught:
        trackers.require(bundle)
    assert f"`logging.{library}` needs the library `{library}`" in caught.value.message
    assert f"pip install 'sftc[{library}]'" in (caught.value.help or "")


def test_nobody_who_does_not_ask_needs_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "find_spec", {}.get)
    bundle = read_bundle(write_build(tmp_path / "build"))
    trackers.require(bundle)
    assert trackers.following(bundle, tmp_path, print) == []


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Killed after iteration 4, and gone on with from 3: both trackers were given 4 before."""
    for library in ("megatron", "wandb", "mlflow"):
        pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("twice")
    build = write_build(folder / "build", values=VALUES)
    write_pointer(build, folder / "run")
    launcher = torchrun(folder, build, TINY_STEP_HANGS_AT="4")
    try:
        deadline = time.monotonic() + LIMIT
        while not (kept(folder / "run/mlflow.json") and has_evaluated(folder / "run")):
            assert launcher.poll() is None, (folder / "torchrun.err").read_text()
            assert time.monotonic() < deadline, (folder / "torchrun.err").read_text()
            time.sleep(0.05)
    finally:
        launcher.kill()
        launcher.wait()
    return folder, train(folder, build)


def kept(state: Path) -> bool:
    """Whether MLflow was given the evaluation at iteration 4."""
    return state.is_file() and json.loads(state.read_text())["valid"] == 4


def has_evaluated(run_path: Path) -> bool:
    """Whether W&B has written that evaluation into its file, which it does within a second."""
    return any("valid/loss" in row for rows in histories(run_path) for row in rows)


@pytest.mark.slow
def test_the_terminal_is_ours(twice: tuple[Path, Ended]) -> None:
    folder, ended = twice
    assert ended.status == 0, ended.stderr
    for text in (ended.stderr, (folder / "torchrun.err").read_text()):
        assert not [word for word in ("wandb:", "mlflow", "WARNING: ") if word in text], text
        assert "W&B follows this run: offline, in `run/wandb`\n" in text
        assert "MLflow follows this run: experiment `tests`, run " in text
    starts = json.loads((folder / "run/run.json").read_text())["starts"]
    assert [(start["iteration"], start.get("outcome")) for start in starts] == [(0, None), (3, "complete")]


@pytest.mark.slow
def test_wandb_has_each_iteration_once(twice: tuple[Path, Ended]) -> None:
    folder, _ = twice
    starts = histories(folder / "run")
    trained = [[row["iteration"] for row in rows if "train/lm_loss" in row] for rows in starts]
    assert trained == [[1, 2, 3, 4], [5, 6, 7, 8]]
    rows = [row for start in starts for row in start]
    assert [row["_step"] for row in rows] == list(range(len(rows)))  # W&B drops what does not grow
    for name, key in NAMES:
        assert {row["iteration"]: row[name] for row in rows if name in row} == pytest.approx(logged(folder, key))
    runs = [next(record.run for record in records(path) if record.HasField("run")) for path in files(folder / "run")]
    assert len({run.run_id for run in runs}) == 1
    assert (runs[0].project, runs[0].display_name, list(runs[0].tags)) == ("tests", "tiny", ["tiny"])
    config = {update.key: json.loads(update.value_json) for update in runs[0].config.update}
    assert config["train"]["lr"] == 0.002
    assert config["build"]["manifest"] == json.loads((folder / "run/run.json").read_text())["manifest"]


@pytest.mark.slow
def test_mlflow_has_each_iteration_once(twice: tuple[Path, Ended]) -> None:
    from mlflow import MlflowClient

    folder, _ = twice
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/tracked here/mlflow.db")
    experiment = client.get_experiment_by_name("tests")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "by another name")
    assert run.data.params["train.lr"] == "0.002"
    assert run.data.tags["team"] == "us"
    for name, key in NAMES:
        history = client.get_metric_history(run.info.run_id, name)
        assert len({metric.step for metric in history}) == len(history)
        assert {metric.step: metric.value for metric in history} == pytest.approx(logged(folder, key))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return read(folder / "run/metrics.jsonl")


def logged(folder: Path, key: str) -> dict[int, float]:
    return {line["iteration"]: line[key] for line in lines_of(folder) if key in line}


@pytest.mark.slow
def test_memory_is_that_of_a_process(twice: tuple[Path, Ended]) -> None:
    """torch alone takes more than 100 MB; a machine of the tests has no TB."""
    folder, _ = twice
    held = [line["memory_bytes"] for line in lines_of(folder) if "lm_loss" in line]
    assert len(held) == 8
    assert all(100e6 < one < min(1e12, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) for one in held)
