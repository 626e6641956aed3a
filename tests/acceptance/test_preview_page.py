"""The preview page in a real browser: Debian's Chromium, driven through chromedriver's HTTP interface (W3C WebDriver).

Screenshots are kept in $SFTC_ARTIFACTS, or in the test's own directory.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEANEST = '<script>document.title="pwned";alert(1)</script><img src=x onerror=alert(2)>"\'&<b>bold</b>'
KEYS = {"right": "\ue014", "left": "\ue012", "escape": "\ue00c", "tab": "\ue004", "enter": "\ue007"}
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Debian's packages chromium and chromium-driver")


# Pairs of a selector and the contrast of its first element, as WCAG 2 defines it.
CONTRAST = """(() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const ground = (node) => {
    const colour = parts(getComputedStyle(node).backgroundColor);
    return colour.length === 4 && colour[3] === 0 ? ground(node.parentElement) : colour;
  };
  const ratio = (one, two) => (Math.max(one, two) + .05) / (Math.min(one, two) + .05);
  const names = [".y", ".n", ".soft", ".card .note", ".card dt", "thead th", "summary", ".notices li", "footer p",
    ".kicker", "svg text", "svg .limit-text"];
  return names.flatMap((name) => [...document.querySelectorAll(name)].slice(0, 1).map((node) => {
    const style = getComputedStyle(node);
    const ink = name.startsWith("svg") ? style.fill : style.color;
    return [name, ratio(luminance(parts(ink)), luminance(ground(node)))];
  }));
})()"""


class Browser:
    """One window. Methods raise `urllib.error.HTTPError` for what the driver refuses."""

    def __init__(self, port: int, dark: bool) -> None:
        self._at = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        arguments += ["--window-size=1280,1600", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        options = {"binary": BROWSER, "args": arguments}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._at += f"/{session['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._at + path, data=data, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        self._call("POST", "/url", {"url": page.as_uri()})

    def press(self, *keys: str) -> None:
        """Keys one after the other, to whatever has the focus."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def run(self, script: str) -> Any:
        return self._call("POST", "/execute/sync", {"script": f"return {script}", "args": []})

    def log(self) -> list[dict[str, Any]]:
        """What the console says, errors of loading and of the content policy included."""
        found: list[dict[str, Any]] = self._call("POST", "/se/log", {"type": "browser"})
        return found

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def quit(self) -> None:
        self._call("DELETE", "")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    assert DRIVER is not None
    # It says on which free port it listens.
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert driver.stdout is not None
    try:
        line = next(line for line in driver.stdout if "started successfully" in line)
        found = re.search(r"port (\d+)", line)
        assert found, line
        yield int(found[1])
    finally:
        driver.terminate()
        driver.wait(timeout=10)


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


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("SFTC_ARTIFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def opened(port: int, page: Path, dark: bool = False) -> Browser:
    browser = Browser(port, dark)
    browser.open(page)
    return browser


def dimensions(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


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
        found = dict(browser.run(CONTRAST))
        assert {".y", ".n", ".soft", ".notices li"} <= set(found)
        assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}
    finally:
        browser.quit()
