"""The metrics file after a kill, and what is shown of a training."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from build_dir import write_build

from sftc.runtime import prepare
from sftc.runtime.data import prepare as data_prepare
from sftc.runtime.errors import UserError
from sftc.runtime.metrics import Metrics, is_evaluated, read
from sftc.runtime.progress import Counter, Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def write(folder: Path, *iterations: int, resumed_at: int = 0) -> None:
    metrics = Metrics(folder, resumed_at=resumed_at)
    for iteration in iterations:
        metrics.write(iteration=iteration, lm_loss=float(iteration))
    metrics.close()


def test_a_resumed_run_forgets_what_it_trains_again(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 5)
    write(tmp_path, 4, 5, 6, resumed_at=3)
    assert [line["iteration"] for line in read(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_torn_line_is_forgotten(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "lm_l')
    write(tmp_path, 4, resumed_at=3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3, 4]


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, resumed_at=0)
    metrics.write(iteration=1, lm_loss=float("nan"), grad_norm=float("inf"))
    assert (tmp_path / "metrics.jsonl").read_text() == '{"iteration": 1, "lm_loss": null, "grad_norm": null}\n'


def test_an_evaluation_is_known_by_its_iteration(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, resumed_at=0)
    metrics.write(iteration=4, lm_loss=1.0)
    metrics.write(iteration=5, valid_loss=1.0)
    assert (is_evaluated(tmp_path, 4), is_evaluated(tmp_path, 5)) == (False, True)


def test_a_log_gets_lines() -> None:
    log = io.StringIO()
    Progress(20, log).step(5, loss=1.23456, tokens_per_second=1234.5, tflops=0.01234, seconds_left=61)
    assert log.getvalue() == "iteration  5/20  loss 1.2346  1,234 tokens/s  0.0123 TFLOP/s/rank  1m01s left\n"


def test_a_terminal_gets_one_line_that_makes_room_for_others() -> None:
    terminal = Terminal()
    progress = Progress(20, terminal)
    progress.step(10, loss=1, tokens_per_second=1, tflops=1, seconds_left=1)
    progress.step(20, loss=1, tokens_per_second=1, tflops=1, seconds_left=0)
    progress.say("done")
    assert "\n" not in terminal.getvalue().removesuffix("\n")
    assert terminal.getvalue().count("\r\x1b[K") == 3
    assert "█" * 12 + "░" * 12 in terminal.getvalue()


def test_a_log_gets_a_line_per_tenth_of_the_bytes() -> None:
    log = io.StringIO()
    counter = Counter("preparing", log)
    for done in range(101):
        counter(done, 100, done)
    assert log.getvalue().splitlines() == [f"preparing: {tenth}0%, {tenth}0 rows" for tenth in range(1, 11)]


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0s"), (59.6, "1m00s"), (125, "2m05s"), (7620, "2h07m")])
def test_times_are_short(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_an_error_of_preparation_stands_on_a_line_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad_rows(value: Any, path: Path, digest: str, report: Callable[..., None], notice: Any) -> None:
        report(1, 2, 1)
        raise UserError("bad rows")

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(data_prepare, "prepare_run", bad_rows)
    monkeypatch.setattr(prepare.megatron, "require_target", lambda _: "0.19.2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        prepare.run(write_build(tmp_path / "build"))
    assert terminal.getvalue().endswith("preparing data: 50%, 1 rows\n")
