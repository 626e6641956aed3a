"""The scores and the answers on the page of a run, in a real browser and as its text."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import MISSING, dimensions, opened
from made_run import write_answers, write_run

in_a_browser = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
MEAN = "</script></p></article><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
ODD = "\x00\x1b[31m\u202eturned\u2028\ud83d\ttab " + "x" * 3000
TEXTS = (".verdict", ".right .verdict", ".wrong .verdict", ".open .verdict", ".cut", ".head b", ".head span")
TEXTS += (".text", ".definition", "#evaluation", ".choice .soft", ".rest > summary", ".text.whole")
SEEN = "[...document.querySelectorAll('.conversation')].filter(one => !one.hidden)"
SHOWN = (
    f"{SEEN}.map(one => [...one.querySelectorAll('.answer')].filter(part => !part.hidden).map(part => part.innerText))"
)
VERDICTS = f"{SEEN}.map(one => one.querySelector('.answer:not([hidden]) .verdict').textContent)"

type Report = Callable[..., Path]


@pytest.fixture
def report(run_line, recipe: Path, tmp_path: Path) -> Report:
    """The page of a run with such answers; with none where no iterations are named."""
    assert run_line("sftc compile recipe.yaml -o build").returncode == 0

    def made(iterations: range | None = None, **more: Any) -> Path:
        folder = write_run(tmp_path / "run", tmp_path / "build", 300, valid_every=25)
        if iterations is not None:
            write_answers(folder, iterations, **more)
        done = run_line("sftc report run")
        assert (done.returncode, done.stderr) == (0, "wrote run/report.html\n")
        return folder / "report.html"

    return made


@in_a_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_scores_and_answers_look_right(report: Report, port: int, artifacts: Path, dark: bool) -> None:
    page = report(range(0, 301, 25))
    browser = opened(port, page, dark)
    try:
        for kind, width in (("desk", 1280), ("phone", 390)):
            browser.resize(width, 900)
            browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
            assert browser.run("document.documentElement.scrollWidth") == width
            browser.run("document.querySelectorAll('details').forEach(one => { one.open = false; })")
            for part in ("scores", "answers"):
                height = browser.run(f"Math.ceil(document.getElementById('{part}').getBoundingClientRect().height)")
                browser.resize(width, min(height + 20, 3000))
                browser.run(f"document.getElementById('{part}').scrollIntoView()")
                picture = artifacts / f"report-{part}-{'dark' if dark else 'light'}-{kind}.png"
                browser.screenshot(picture)
                assert dimensions(picture.read_bytes())[0] == width
        assert browser.run("document.documentElement.dataset.ready") == "12"
        found = browser.contrasts(TEXTS)
        assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}
        assert len(found) == len(TEXTS)
        assert browser.log() == []
    finally:
        browser.quit()


@in_a_browser
def test_an_earlier_evaluation_is_chosen_by_the_keyboard(report: Report, port: int) -> None:
    browser = opened(port, report(range(0, 301, 25)))
    try:
        options = browser.run("[...document.getElementById('evaluation').options].map(one => one.textContent)")
        assert [text.partition(":")[0].removeprefix("iteration ") for text in options] == [
            *("300", "225", "175", "100", "50", "0")
        ]
        assert browser.run("document.getElementById('evaluation').offsetHeight") > 0
        assert browser.run("document.getElementById('shown').hidden")
        newest = browser.run(SHOWN)
        assert [len(one) for one in newest] == [1] * 50
        before = browser.run(VERDICTS)
        browser.run("document.getElementById('evaluation').focus()")
        browser.press("end")
        earliest = browser.run(VERDICTS)
        assert before.count("✓ right") > earliest.count("✓ right") > 0
        assert before.count("○ nothing to compare") == earliest.count("○ nothing to compare") > 0
        assert set(earliest) == {"✓ right", "✗ wrong", "○ nothing to compare"}
        assert [len(one) for one in browser.run(SHOWN)] == [1] * 50
        browser.press("home")
        assert browser.run(SHOWN) == newest
        assert browser.log() == []
    finally:
        browser.quit()


@in_a_browser
def test_without_scripts_the_newest_answers_stand_there(report: Report, port: int) -> None:
    page = report(range(25, 76, 25), count=5)
    browser = opened(port, page)
    try:
        browser.stop_scripts()
        browser.open(page)
        assert browser.run("document.documentElement.dataset.ready ?? 'never'") == "never"
        assert [len(one) for one in browser.run(SHOWN)] == [1] * 5
        assert browser.run("document.getElementById('shown').innerText").startswith("iteration 75: ")
        assert browser.run("document.getElementById('evaluation').offsetHeight") == 0
        assert "The earlier ones take a script" in browser.run("document.querySelector('.choice').innerText")
    finally:
        browser.quit()


@in_a_browser
def test_answers_are_text_whatever_they_hold(report: Report, port: int, artifacts: Path) -> None:
    browser = opened(port, report(range(25, 51, 25), count=12, text=MEAN + ODD))
    try:
        assert browser.run("document.title") == "quickstart: Complete"
        assert browser.run("[document.scripts.length, document.images.length]") == [1, 0]
        assert browser.run("document.querySelectorAll('.conversation').length") == 12
        texts = browser.run(f"{SEEN}.flatMap(one => [...one.querySelectorAll('.text')].map(part => part.textContent))")
        assert len(texts) == 12 * 5  # question, prompt, reference, and the answer of two evaluations
        odd = "␀␛[31m⟨U+202E⟩turned⟨U+2028⟩⟨U+D83D⟩⇥tab " + "x" * 3000
        assert all(MEAN + odd in text for text in texts)
        for width in (1280, 390):
            browser.resize(width, 1600)
            browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
            assert browser.run("document.documentElement.scrollWidth") == width
        browser.run("document.getElementById('answers').scrollIntoView()")
        browser.screenshot(artifacts / "report-answers-mean-phone.png")
        assert browser.log() == []
    finally:
        browser.quit()


def test_a_run_without_answers_has_no_such_parts(report: Report) -> None:
    text = report().read_text()
    assert re.findall(r'<section (?:id="(\w+)" )?aria-label="([^"]*)"', text) == [
        ("plots", "Plots"),
        ("", "Starts"),
        ("", "Plan"),
        ("", "Machine and digests"),
    ]
    assert len(re.findall("<figure", text)) == 5
    assert "<select" not in text
    assert "exact match" not in text


def test_many_answers_make_a_small_page_quickly(report: Report) -> None:
    """40 evaluations of 200 long answers: less than 3 MB, and less than 10 s of a processor."""
    before = os.times()
    page = report(range(0, 300, 8)[:40], count=200, text=" and so on" * 50)
    spent = os.times()
    text = page.read_text()
    assert len(text) < 3_000_000
    assert "Shown are 50 of 200 conversations at 6 of 38 evaluations; answers.jsonl holds 7,300 more answers." in text
    assert spent.children_user + spent.children_system - before.children_user - before.children_system < 10
    assert all(one in text for one in ("nrefs:1|case:mixed", "rouge-score 0.1.2, use_stemmer=False", "answer_length"))


def test_the_newest_exact_match_is_on_the_line_of_a_run(report: Report, run_line, tmp_path: Path) -> None:
    report(range(25, 101, 25), count=13)
    title, line = run_line("sftc runs run").stdout.splitlines()
    assert "  exact match  " in title
    assert " 0.833 " in line
    (tmp_path / "run/answers.jsonl").unlink()
    assert "exact match" not in run_line("sftc runs run").stdout
