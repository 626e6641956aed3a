"""Run directories in every state that a run, a kill or a full disk can leave them in."""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftc.runtime.checkpoint.owner import FILE, Hold
from sftc.runtime.metrics import newest, read
from sftc.runtime.record import RunRecord, end_unsaid, epoch_seconds
from sftc.runtime.runs.commands import documents, table
from sftc.runtime.runs.page import page
from sftc.runtime.runs.plots import BUCKETS, Curve, Scale, across_scale, plot, running_mean, steps, thinned
from sftc.runtime.runs.run import find_runs, read_run


def write_run(
    folder: Path, *, iterations: int = 10, outcome: str | None = "complete", plan: bool = True, **start: Any
) -> Path:
    """A run of 10 iterations, of which so many are logged, with a checkpoint at the last."""
    folder.mkdir(parents=True)
    facts = {"iteration": 0, "start": "random", "host": "here", "device": "cpu", "world_size": 1, **start}
    record = RunRecord(folder, name=folder.name, manifest="0" * 64)
    record.started(arguments=["--train-iters", "7", "--lr", "1", "--train-iters", "10"], **facts)
    if outcome is None:
        killed(folder)
    else:
        record.ended(iteration=iterations, outcome=outcome, why="SIGTERM" if outcome == "stopped" else None)
    lines = [{"iteration": at, "lm_loss": 1 / at, "tokens_per_second": 100.0} for at in range(1, iterations + 1)]
    lines.insert(4, {"iteration": 4, "valid_loss": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save = folder / "checkpoints"
    (save / f"iter_{iterations:07d}").mkdir(parents=True)
    (save / f"iter_{iterations:07d}/metadata.json").write_text("{}")
    (save / "latest_checkpointed_iteration.txt").write_text(str(iterations))
    if plan:
        values = {"checkpoint": {"save": {"value": "runs/x/checkpoints"}}, "logging": {"run_path": {"value": "runs/x"}}}
        (folder / "build").mkdir()
        (folder / "build/plan.json").write_text(json.dumps({"name": "x", "values": values}))
    return folder


def killed(folder: Path, **facts: Any) -> None:
    """The record as of a process that is gone; or of one with other facts, or with none."""
    record = json.loads((folder / "run.json").read_text())
    process = {**record["starts"][-1].pop("process"), "born": "1", **facts}
    record["starts"][-1] |= {"process": process} if facts.get("pid", 0) is not None else {}
    (folder / "run.json").write_text(json.dumps(record))


def test_a_complete_run_on_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = [read_run(path) for path in find_runs(write_run(Path("runs/small")))]
    then = epoch_seconds() - 65
    os.utime("runs/small/checkpoints/latest_checkpointed_iteration.txt", (then, then))
    monkeypatch.setattr("sftc.runtime.runs.run.epoch_seconds", lambda: then + 65)
    run = read_run(run.path)
    lines = table([run]).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "run state iteration loss validation tokens/s checkpoint starts",
        "runs/small complete 10/10 0.1000 0.5000 100 10 (1m05s ago) 1",
    ]
    (document,) = documents([run])
    assert document["checkpoint"] == {"iteration": 10, "age_seconds": pytest.approx(65, abs=0.1), "save": str(run.save)}
    assert (document["valid_loss"], document["valid_iteration"]) == (0.5, 4)


@pytest.mark.parametrize("outcome", ["complete", "stopped", "failed"])
def test_the_outcome_is_the_state(tmp_path: Path, outcome: str) -> None:
    run = read_run(write_run(tmp_path / "run", outcome=outcome))
    assert (run.state, run.why) == (outcome, "SIGTERM" if outcome == "stopped" else None)


@pytest.mark.parametrize("facts", [{"machine": "another"}, {"machine": None}, {"pid": None}])
def test_a_start_that_cannot_be_seen_is_running_as_long_as_its_directory_has_a_living_owner(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    """On another machine, on a system without name spaces, in a record from before processes were named."""
    folder = write_run(tmp_path / "run", outcome=None, iterations=6)
    killed(folder, **facts)
    hold = Hold(folder / "checkpoints", "run", print)
    hold.take()
    run = read_run(folder)
    assert (run.state, run.why, run.iteration, run.iterations) == ("running", None, 6, 10)
    hold.release()
    run = read_run(folder)
    assert (run.state, run.why) == ("lost", "nothing holds the checkpoint directory")


def test_the_record_names_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything of the run has used them. They are made up."""
    cuda = SimpleNamespace(device_count=lambda: 2, get_device_name=["first", "second"].__getitem__)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    for device, gpus in (("cuda", ["first", "second"]), ("cpu", [])):
        record = json.loads((write_run(tmp_path / device, device=device) / "run.json").read_text())
        assert record["starts"][-1]["gpus"] == gpus


def test_a_start_whose_process_lives_is_running_without_a_lock(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    record = RunRecord(folder, name="run", manifest="0" * 64)
    record.started(iteration=10, start="resume")
    assert read_run(folder).state == "running"
    assert page(read_run(folder))["starts"][1]["outcome"] == "running"
    record.ended(iteration=10, outcome="complete")
    assert read_run(folder).state == "complete"


def test_a_start_whose_process_is_gone_is_lost_whoever_holds_its_directory(tmp_path: Path) -> None:
    """Such as the next start, which has recorded nothing yet."""
    folder = write_run(tmp_path / "run", outcome=None)
    killed(folder, pid=4711)
    gone = "process 4711 on here is gone"
    record = json.loads((folder / "run.json").read_text())
    record["starts"][-1]["host"] = "here"
    (folder / "run.json").write_text(json.dumps(record))
    assert (read_run(folder).state, read_run(folder).why) == ("lost", gone)
    hold = Hold(folder / "checkpoints", "run", print)
    hold.take()
    run = read_run(folder)
    assert run.state == "lost"
    assert f"{gone}, and " in (run.why or "")
    assert f"process {os.getpid()}, since 20" in (run.why or "")
    shown = page(run)
    assert shown["state"]["about"] == f"The last start never said how it ended: {run.why}."
    assert (shown["starts"][-1]["outcome"], shown["starts"][-1]["why"]) == ("lost", run.why)
    hold.release()


@pytest.mark.parametrize(
    ("facts", "end"),
    [({"born": "1"}, "is gone"), ({"machine": "another"}, "has given no sign of life for 1m30s")],
)
def test_what_an_owner_that_is_gone_has_left_is_said(tmp_path: Path, facts: dict[str, Any], end: str) -> None:
    folder = write_run(tmp_path / "run", outcome=None)
    killed(folder, machine="another")
    lock = folder / "checkpoints" / FILE
    Hold(folder / "checkpoints", "run", print).take()
    lock.write_text(json.dumps(json.loads(lock.read_text()) | facts | {"user": "ann", "host": "node7", "pid": 12}))
    then = epoch_seconds() - 90
    os.utime(lock, (then, then))
    run = read_run(folder)
    assert run.state == "lost"
    assert (run.why or "").startswith("ann on node7, process 12, since 20")
    assert (run.why or "").endswith(f", which held the checkpoint directory, {end}")


def test_where_nothing_shows_whether_a_start_lives_nothing_is_claimed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", outcome=None)
    killed(folder, machine="another")
    (folder / "checkpoints" / FILE).mkdir()
    run = read_run(folder)
    assert (run.state, run.why) == ("unknown", "whether it lives cannot be seen from here")
    assert "the lock in" in run.problems[0]
    plan = json.loads((folder / "build/plan.json").read_text())
    plan["values"]["checkpoint"]["save"]["value"] = None
    (folder / "build/plan.json").write_text(json.dumps(plan))
    (folder / "checkpoints").rename(folder / "elsewhere")
    run = read_run(folder)
    assert (run.state, run.problems) == ("unknown", ())
    assert page(run)["starts"][0]["outcome"] == "unknown"


def test_a_supervisor_speaks_for_a_rank_that_was_killed_and_for_no_other(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", outcome=None)
    end_unsaid(folder, "a rank was killed by SIGKILL")
    run = read_run(folder)
    assert (run.state, run.why) == ("failed", "a rank was killed by SIGKILL")
    assert page(run)["starts"][0]["iterations"] == "0 → 10"
    end_unsaid(folder, "another reason")
    assert read_run(folder).why == run.why
    for torn in ("{", "[]", '{"starts": []}', '{"starts": [3]}'):
        (folder / "run.json").write_text(torn)
        end_unsaid(folder, "another reason")
        assert (folder / "run.json").read_text() == torn


@pytest.mark.parametrize(("at", "state"), [(10, "complete"), (6, "stopped")])
def test_a_record_from_before_there_were_outcomes(tmp_path: Path, at: int, state: str) -> None:
    folder = write_run(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    del record["starts"][0]["outcome"], record["starts"][0]["why"]
    record["starts"][0]["ended_at_iteration"] = at
    (folder / "run.json").write_text(json.dumps(record))
    assert read_run(folder).state == state


def test_a_run_that_only_has_its_data(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("{}")
    run = read_run(tmp_path)
    assert (run.state, run.iteration, run.problems) == ("prepared", None, ())
    assert page(run)["starts"] == []


@pytest.mark.parametrize(
    ("name", "content", "state"),
    [
        ("run.json", b'{"starts": [', "unreadable"),
        ("run.json", b"[]", "unreadable"),
        ("run.json", b"\xff\xfe", "unreadable"),
        ("run.json", b'{"starts": [3]}', "unreadable"),
        ("run.json", b'{"starts": []}', "unreadable"),
        ("build/plan.json", b'{"values"', "complete"),
        ("checkpoints/latest_checkpointed_iteration.txt", b"12x", "complete"),
    ],
)
def test_what_is_torn_is_named_and_stops_nobody(tmp_path: Path, name: str, content: bytes, state: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_bytes(content)
    run = read_run(folder)
    assert run.state == state
    assert len(run.problems) == 1
    assert Path(name).name in run.problems[0]
    assert table([run])
    assert documents([run])
    assert page(run)["problems"] == list(run.problems)


@pytest.mark.parametrize(
    "lines", [b"", b"\x00\xff\n", b'{"iteration": 3, "lm_l', b"[1]\n3\nnull\n", b'{"iteration": "3", "lm_loss": 2}\n']
)
def test_torn_metrics_are_no_metrics(tmp_path: Path, lines: bytes) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_bytes(lines)
    run = read_run(folder)
    assert (run.loss, run.valid_loss) == (None, None)
    assert run.iteration == 10  # the record says it
    assert [one["empty"] for one in page(run)["plots"]] == ["nothing was logged"] * 5


def test_a_loss_that_is_not_finite_is_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 11, "lm_loss": null}\n')
    run = read_run(folder)
    assert " nan " in table([run])
    assert documents([run])[0]["loss"] is None


def test_runs_are_found_beside_and_below_each_other(tmp_path: Path) -> None:
    for name in ("b", "a", "group/c"):
        write_run(tmp_path / name)
    write_run(tmp_path / "a/inside")  # of a run nothing below it is looked at
    (tmp_path / "none").mkdir()
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b", tmp_path / "group/c"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]


@pytest.mark.parametrize("count", [0, 1, 1000, 5000])
def test_the_newest_lines_are_those_of_the_whole_file(tmp_path: Path, count: int) -> None:
    """Over the borders of blocks, and with a torn line at the end."""
    path = tmp_path / "metrics.jsonl"
    lines = [{"iteration": at, "lm_loss": at / 3, "filling": "x" * (at % 97)} for at in range(count)]
    lines.insert(min(2, count), {"iteration": 1, "valid_loss": 4.0})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"iteration": 9, "lm_loss"')
    found = newest(path, "lm_loss", "valid_loss")
    whole = read(path)
    for key in ("lm_loss", "valid_loss"):
        assert found.get(key) == next((line for line in reversed(whole) if key in line), None)


def test_many_runs_are_quick(tmp_path: Path) -> None:
    """200 runs with 2,000 lines each, in processor time: it takes about a tenth of what is allowed."""
    first = write_run(tmp_path / "run0", iterations=2000)
    for number in range(1, 200):
        folder = tmp_path / f"run{number}"
        (folder / "checkpoints/iter_0002000").mkdir(parents=True)
        names = ("run.json", "metrics.jsonl", "checkpoints/latest_checkpointed_iteration.txt")
        for name in (*names, "checkpoints/iter_0002000/metadata.json"):
            os.link(first / name, folder / name)
    before = time.process_time()
    runs = [read_run(path) for path in find_runs(tmp_path)]
    assert time.process_time() - before < 2
    assert {(run.state, run.iteration) for run in runs} == {("complete", 2000)}
    assert len(runs) == 200


def test_thinning_keeps_the_extremes_and_the_gaps() -> None:
    points: list[tuple[int, float | None]] = [(at, 1 + (at * 7919 % 101) / 1000) for at in range(100_000)]
    points[4321], points[77_777], points[50_000] = (4321, 9.0), (77_777, -3.0), (50_000, None)
    kept = thinned(points)
    assert len(kept) <= 3 * BUCKETS + 1
    assert {(4321, 9.0), (77_777, -3.0), (50_000, None), points[-1]} <= set(kept)
    assert [at for at, _ in kept] == sorted({at for at, _ in kept})
    assert thinned(points[:50]) == points[:50]


def test_the_mean_does_not_lag_and_leaves_gaps() -> None:
    line: list[tuple[int, float | None]] = [(at, float(at)) for at in range(400)]
    assert all(value == pytest.approx(at) for at, value in running_mean(line, 20)[20:-20])
    line[200] = (200, None)
    assert dict(running_mean(line, 20))[200] is None


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.9, 1.1, [0.9, 0.95, 1.0, 1.05, 1.1]), (0, 2e-5, [0, 5e-6, 1e-5, 1.5e-5, 2e-5])],
)
def test_steps_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert steps(low, high, 5 if high == 10 else 4) == pytest.approx(wanted)


def test_a_lone_value_between_two_gaps_is_drawn() -> None:
    points = [(1, 2.0), (2, None), (3, 1.0), (4, None)]
    drawn = plot("t", "u", [Curve(name="n", kind="k", points=points)], across=across_scale([1, 4]), words=str)
    (line,) = drawn["lines"]
    assert line["path"].count("M") == 2
    assert line["dots"] == line["path"]
    assert drawn["missing"] == ["33.33%", "100.00%"]
    assert "2 values are not finite (red)" in drawn["notes"]


def test_a_spike_makes_the_scale_logarithmic() -> None:
    values = [1.0] * 200 + [5000.0]
    points = list(enumerate(values, start=1))
    drawn = plot("t", "u", [Curve(name="n", kind="k", points=points)], across=Scale(low=1, high=201), words=str)
    assert drawn["notes"] == ["logarithmic scale, u"]
    assert [tick["text"] for tick in drawn["up"]] == ["1.0", "10.0", "100.0", "1000.0"]


def test_the_starts_on_the_line_of_time(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", outcome=None)
    day = "2026-01-01T"
    starts: list[dict[str, Any]] = [
        {"started": f"{day}00:00:00+00:00", "iteration": 0, "host": "a", "slurm_job_id": "7"},
        {
            "started": f"{day}06:00:00+00:00",
            "iteration": 4,
            "ended": f"{day}09:00:00+00:00",
            "outcome": "failed",
            "why": "no",
        },
        {"started": "torn", "iteration": 6},
        {"started": f"{day}12:00:00+00:00", "iteration": 6, "host": "b", "slurm_restart_count": "2"},
    ]
    (folder / "run.json").write_text(json.dumps({"name": "n", "starts": starts}))
    os.utime(folder / "metrics.jsonl", (1767312000, 1767312000))  # midnight
    shown = page(read_run(folder))
    assert [row["outcome"] for row in shown["starts"]] == ["lost", "failed", "lost", "lost"]
    assert [row["duration"] for row in shown["starts"]] == ["not known", "3h00m", "not known", "not known"]
    assert [row["host"] for row in shown["starts"]] == ["a · job 7", "", "", "b · requeue 2"]
    bars = [(bar["text"], bar["left"], bar["width"]) for bar in shown["time"]["bars"]]
    assert bars == [("1", "0.000%", "25.000%"), ("2", "25.000%", "12.500%"), ("4", "50.000%", "50.000%")]
    assert shown["time"]["trained"] == "at least 3h00m"
    assert [mark["text"] for mark in shown["plots"][0]["restarts"]] == ["2", "3", "4"]
