"""A real browser: Debian's Chromium, driven through chromedriver's HTTP interface (W3C WebDriver)."""

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEYS = {
    "right": "\ue014",
    "left": "\ue012",
    "home": "\ue011",
    "end": "\ue010",
    "escape": "\ue00c",
    "tab": "\ue004",
    "enter": "\ue007",
}
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = None if BROWSER and DRIVER else "needs Debian's packages chromium and chromium-driver"


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
  return NAMES.flatMap((name) => [...document.querySelectorAll(name)].slice(0, 1).map((node) => {
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

    def resize(self, width: int, height: int) -> None:
        """The page's own width and height, in CSS pixels; narrow ones as a phone shows them."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def move_to(self, x: float, y: float) -> None:
        """The pointer, to that place of the window."""
        move = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}
        self._call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def contrasts(self, selectors: Sequence[str]) -> dict[str, float]:
        """Of the first element of each selector, between its text and its ground, as WCAG 2 defines it."""
        return dict(self.run(CONTRAST.replace("NAMES", json.dumps(list(selectors)))))

    def stop_scripts(self) -> None:
        """Those of the pages that are opened from now on; `run` goes on."""
        switch = {"cmd": "Emulation.setScriptExecutionDisabled", "params": {"value": True}}
        self._call("POST", "/goog/cdp/execute", switch)

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


@contextmanager
def driver() -> Iterator[int]:
    """chromedriver; the port that it listens at."""
    assert DRIVER is not None
    # It says on which free port it listens.
    process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "started successfully" in line)
        found = re.search(r"port (\d+)", line)
        assert found, line
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(timeout=10)


def opened(port: int, page: Path, dark: bool = False) -> Browser:
    browser = Browser(port, dark)
    browser.open(page)
    return browser


def dimensions(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
