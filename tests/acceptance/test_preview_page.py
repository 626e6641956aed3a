"""The preview page in a real browser. Screenshots: see `artifacts` in conftest.py."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from browser import MISSING, dimensions, opened

ROOT = Path(__file__).resolve().parents[2]
MEANEST = '<script>document.title="pwned";alert(1)</script><img src=x onerror=alert(2)>"\'&<b>bold</b>'
TEXTS = (
    ".y",
    ".n",
    ".soft",
    ".card .note",
    ".card dt",
    "thead th",
    "summary",
    ".notices li",
    "footer p",
    ".kicker",
    "svg text",
    "svg .limit-text",
)
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture
def page(run_line, recipe: Path, tmp_path: Path) -> Path:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    rows = [{"messages": [{"role": "user", "content": MEANEST}, {"role": "assistant", "content": MEANEST}]}]
    rows += [json.loads(line) for line in (ROOT / "recipes/quickstart/train.jsonl").open()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"wrong": "<b>"}\n')
    text = recipe.read_text().replace("recipes/quickstart/train.jsonl", "rows.jsonl\n  on_bad_row: skip")
    for key, old in (("seq_length", 96), ("max_position_embeddings", 128)):
        text = text.replace(f"{key}: {old}", f"{key}: 256")
    recipe.write_text(text)
    done = run_line("sftc data preview recipe.yaml -n 4 --html page.html")
    assert done.returncode == 0, done.stderr
    return tmp_path / "page.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_shows_in_both_schemes_without_a_complaint(port: int, page: Path, artifacts: Path, dark: bool) -> None:
    browser = opened(port, page, dark)
    try:
        assert browser.run("document.documentElement.dataset.ready") == "8"
        scheme = "dark" if dark else "light"
        for name, anchor in ((f"preview-{scheme}.png", "top"), (f"preview-{scheme}-samples.png", "samples")):
            browser.run(f"(document.documentElement.style.scrollBehavior = 'auto', location.hash = '{anchor}')")
            browser.screenshot(artifacts / name)
            size = dimensions((artifacts / name).read_bytes())
            assert size[0] == 1280
            assert size[1] > 1000
            assert (artifacts / name).stat().st_size > 30_000
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 384) == dark
        assert browser.log() == []
    finally:
        browser.quit()


def test_markup_in_rows_neither_runs_nor_becomes_elements(port: int, page: Path) -> None:
    browser = opened(port, page)
    try:
        assert browser.run("document.title") == "quickstart: what is trained on"
        assert browser.run("document.scripts.length") == 1
        assert browser.run("document.images.length + document.querySelectorAll('b').length") == 0
        text = browser.run("document.querySelector('.tokens').textContent")
        assert text.count(MEANEST) == 2
        titles = browser.run("[...document.querySelectorAll('.tokens span')].map(token => token.title)")
        assert any("<" in title for title in titles)
        assert all(re.match(r"token \d+ of \d+ · id \d+ · ", title) for title in titles)
        # Whatever would come in by another way is stopped by the page's own policy.
        browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
        deadline = time.monotonic() + 10
        log: list[dict[str, Any]] = []
        while time.monotonic() < deadline and len(log) < 2:
            log += browser.log()
        assert log
        assert all("Content Security Policy" in entry["message"] for entry in log), log
        assert browser.run("document.title") == "quickstart: what is trained on"
    finally:
        browser.quit()


def test_everything_is_reached_by_the_keyboard(port: int, page: Path) -> None:
    browser = opened(port, page)
    focused = "document.activeElement.id"
    told = "document.getElementById('told').textContent"
    try:
        browser.press("tab")
        assert browser.run("document.activeElement.className") == "skip"
        browser.press("enter")
        assert browser.run("location.hash") == "#samples"
        browser.press("j", "j")
        assert browser.run(focused) == "sample-2"
        browser.press("k", "k")
        assert browser.run(focused) == "sample-1"
        browser.press("right")
        assert browser.run(told).startswith("token 1 of ")
        browser.press("right", "right", "left")
        assert browser.run(told).startswith("token 2 of ")
        assert browser.run(told) == browser.run("document.activeElement.title")
        browser.press("escape")
        assert (browser.run(focused), browser.run(told)) == ("sample-1", "")
        browser.press("left")
        assert " · not trained on" in browser.run(told)
        # The next stop of the tabulator is the next sample, not one of a thousand tokens.
        browser.press("escape", "tab")
        assert browser.run(focused) == "sample-2"
        assert browser.log() == []
    finally:
        browser.quit()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(port: int, page: Path, dark: bool) -> None:
    """4.5 to 1 between text and ground, for tokens of each kind and for every quieter text."""
    browser = opened(port, page, dark)
    try:
        found = browser.contrasts(TEXTS)
        assert {".y", ".n", ".soft", ".notices li"} <= set(found)
        assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}
    finally:
        browser.quit()
