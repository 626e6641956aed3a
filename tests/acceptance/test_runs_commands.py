"""`sftc runs` and `sftc report` as a user types them, and the page in a real browser."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browser import MISSING, dimensions, opened
from made_run import write_run

in_a_browser = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
MEAN = "<script>document.title='pwned'</script><img src=x onerror=alert(1)>"
TEXTS = (".soft", ".state", ".about", ".card .note", ".card dt", "thead th", "summary", ".outcome", "footer p")
TEXTS += (".kicker", ".readout", ".readout b", ".notes", ".up", ".across", ".origin", ".bar span", ".notices li")
RESTARTED = (
    {"iteration": 0, "start": "random", "outcome": "stopped", "why": "SIGUSR1", "at": 60, "hours": (0, 4)},
    {"iteration": 60, "start": "resume", "slurm_job_id": "81723", "slurm_restart_count": "1", "hours": (5, 9)},
    {
        "iteration": 90,
        "start": "resume",
        "outcome": "failed",
        "why": f"rank 1 failed: {MEAN}",
        "at": 150,
        "hours": (11, 14),
    },
)


@pytest.fixture
def build(run_line, recipe: Path, tmp_path: Path) -> Path:
    assert run_line("sftc compile recipe.yaml -o build").returncode == 0
    return tmp_path / "build"


def test_runs_of_a_folder(run_line, build: Path, tmp_path: Path) -> None:
    assert run_line("sftc runs").stderr == "there is no run in runs/\n"
    write_run(tmp_path / "runs/one", build, 300, valid_every=50)
    write_run(tmp_path / "runs/two", build, 150, starts=RESTARTED)
    (tmp_path / "runs/torn").mkdir()
    (tmp_path / "runs/torn/run.json").write_text("{")
    done = run_line("sftc runs")
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    assert done.stderr.startswith("warning: runs/torn/run.json cannot be read: ")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["runs/one", "complete", "300/300"],
        ["runs/torn", "unreadable", "-"],
        ["runs/two", "failed", "150/300"],
    ]
    (found,) = json.loads(run_line("sftc runs runs/two --format json").stdout)
    assert (found["state"], found["starts"], found["why"]) == ("failed", 3, f"rank 1 failed: {MEAN}")


def test_runs_of_nothing(run_line, tmp_path: Path) -> None:
    assert run_line("sftc runs nowhere").returncode == 2
    done = run_line("sftc runs .")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ". holds no run\n")
    assert json.loads(run_line("sftc runs --format json").stdout) == []


def test_runs_and_reports_are_light(build: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run", build, 10)
    code = (
        "import sys; from sftc.compiler.cli import cli\n"
        f"cli(['runs', {str(tmp_path)!r}], standalone_mode=False)\n"
        f"cli(['report', {str(tmp_path / 'run')!r}], standalone_mode=False)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "megatron", "numpy", "wandb", "mlflow"} & set(done.stdout.splitlines()[-1].split())


def test_a_report_is_replaced_and_nothing_else_is(run_line, build: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run", build, 10)
    for _ in range(2):
        done = run_line("sftc report run")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "wrote run/report.html\n")
    (tmp_path / "notes.html").write_text("mine")
    refused = run_line("sftc report run -o notes.html")
    assert refused.returncode == 4
    assert (tmp_path / "notes.html").read_text() == "mine"
    assert run_line("sftc report build").returncode == 2
    (tmp_path / "run/build/megatron.args").write_text("edited")
    (tmp_path / "run/build/origins.json").unlink()
    assert run_line("sftc report run").returncode == 0
    page = (tmp_path / "run/report.html").read_text()
    assert "megatron.args in run/build is not what was compiled" in page
    torn = (tmp_path / "run/build/manifest.json").read_text()[:-3]
    (tmp_path / "run/build/manifest.json").write_text(torn)
    assert run_line("sftc report run").returncode == 0
    assert "the build in run/build cannot be read" in (tmp_path / "run/report.html").read_text()
    (tmp_path / "run/build/plan.json").unlink()
    assert run_line("sftc report run -o torn.html").returncode == 0
    assert "is no build dir" in (tmp_path / "torn.html").read_text()


def test_the_page_says_what_was_decided_and_why(run_line, build: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", build, 300)
    run_line("sftc report run")
    page = (folder / "report.html").read_text()
    manifest = json.loads((build / "manifest.json").read_text())
    assert all(subject["digest"]["sha256"] in page for subject in manifest["subject"])
    assert json.loads((folder / "run.json").read_text())["manifest"] in page
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "the loss is taken on the assistant&#x27;s tokens only" in text
    assert "task.is_instruction_dataset: true (recipe.yaml:6:27)" in text
    assert "lr 0.002 recipe.yaml:33:7" in text
    assert "run_path runs/quickstart derived: runs/ + name" in text
    assert re.search(r"(src|href)=\"(?!#)", page) is None


def test_a_long_run_makes_a_small_page_quickly(run_line, build: Path, tmp_path: Path) -> None:
    """100,000 iterations: less than 2 MB, and less than 3 s of a processor."""
    folder = write_run(tmp_path / "run", build, 100_000, valid_every=500)
    before = os.times()
    done = run_line("sftc report run")
    spent = os.times()
    assert done.returncode == 0
    assert (folder / "report.html").stat().st_size < 2_000_000
    used = spent.children_user + spent.children_system - before.children_user - before.children_system
    assert used < 3


CASES: dict[str, dict[str, Any]] = {
    "restarted": {"iterations": 150, "valid_every": 10, "not_finite": range(120, 131), "starts": RESTARTED},
    "long": {"iterations": 20_000, "valid_every": 500},
    "one-point": {"iterations": 1},
    "never-finite": {"iterations": 20, "not_finite": range(1, 21)},
    "empty": {"iterations": 0},
}


@in_a_browser
@pytest.mark.parametrize("case", CASES)
def test_it_looks_right(run_line, build: Path, tmp_path: Path, port: int, artifacts: Path, case: str) -> None:
    """Nothing on the console, nothing wider than the window, every text legible: on a desk and on a phone."""
    folder = write_run(tmp_path / "run", build, **CASES[case])
    if case == "restarted":
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/latest_checkpointed_iteration.txt").write_text(MEAN)  # to be named as a problem
    assert run_line("sftc report run").returncode == 0
    for dark in (False, True) if case == "restarted" else (False,):
        browser = opened(port, folder / "report.html", dark)
        try:
            for kind, width in (("desk", 1280), ("phone", 390)):
                browser.resize(width, 900)
                height = browser.run("document.documentElement.scrollHeight")
                browser.resize(width, min(height, 3000))
                assert browser.run("document.documentElement.scrollWidth") == width
                picture = artifacts / f"report-{case}-{'dark' if dark else 'light'}-{kind}.png"
                browser.screenshot(picture)
                assert dimensions(picture.read_bytes()) == (width, min(height, 3000))
            assert browser.run("document.documentElement.dataset.ready") == "5"
            assert browser.run("document.title").startswith("quickstart: ")
            assert browser.run("document.images.length") == 0
            found = browser.contrasts(TEXTS)
            assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}
            assert len(found) == len(TEXTS) or case != "restarted"
            assert browser.log() == []
        finally:
            browser.quit()


@in_a_browser
def test_values_are_read_off_by_pointer_and_keyboard(run_line, build: Path, tmp_path: Path, port: int) -> None:
    folder = write_run(tmp_path / "run", build, 150, valid_every=10, not_finite=[77])
    run_line("sftc report run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {line["iteration"]: line["lm_loss"] for line in lines if "lm_loss" in line}
    readout = "[...document.querySelectorAll('.readout')].map(node => node.textContent)"
    browser = opened(port, folder / "report.html")
    try:
        before = browser.run(readout)
        assert before[0] == f"iteration 150 training {losses[150]:.4g} validation {lines[-1]['valid_loss']:.4g}"
        frame = "document.querySelectorAll('.frame')[0]"
        browser.run(f"{frame}.scrollIntoView({{block: 'center'}})")
        box = browser.run(f"{frame}.getBoundingClientRect()")
        browser.move_to(box["x"] + box["width"] * 39 / 149, box["y"] + 30)
        shown = browser.run(readout)
        assert shown[0].startswith(f"iteration 40 training {losses[40]:.4g} validation ")
        assert all(one.startswith("iteration 40 ") for one in shown)
        browser.run(f"{frame}.focus()")
        browser.press("home")
        assert browser.run(readout)[2].startswith("iteration 1 ")
        browser.press("right", "right")
        assert browser.run(readout)[0].startswith(f"iteration 3 training {losses[3]:.4g}")
        browser.press("end")
        assert browser.run(readout)[0].startswith("iteration 150 ")
        browser.press("escape")
        assert browser.run(readout) == before
        assert browser.log() == []
    finally:
        browser.quit()
