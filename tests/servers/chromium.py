"""A real headless Chromium, driven through its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
DEADLINE = 60.0
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--disable-default-apps",
    "--disable-features=Translate,OptimizationHints",
    "--remote-debugging-pipe",
    "--password-store=basic",
]


class Browser:
    """A running browser; `tab` opens a page in it."""

    def __init__(self, process: subprocess.Popen[bytes], into: int, out: int) -> None:
        self._process, self._into, self._out = process, into, out
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Sends a command and gives its result; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._into, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def wait(self, method: str, session: str) -> dict[str, Any]:
        """The next event of a kind, or one that has come already."""
        while True:
            for event in self.events:
                if event["method"] == method and event.get("sessionId") == session:
                    self.events.remove(event)
                    return event
            self._next()

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            data = os.read(self._out, 1 << 20)
            assert data, f"Chromium has ended: {self._process.wait()}"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "id" not in message:
            self.events.append(message)
        return message

    @contextmanager
    def tab(self, *, width: int = 1100, height: int = 900, dark: bool = False, touch: bool = False) -> Iterator[Tab]:
        """An empty page, gone at the end."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "Accessibility"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        tab.call("Emulation.setEmulatedMedia", features=scheme)
        try:
            yield tab
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)
            self.events = [event for event in self.events if event.get("sessionId") != session]


@dataclass
class Tab:
    """A page in a browser."""

    browser: Browser
    session: str
    requests: list[str] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> Any:
        return self.browser.call(method, self.session, **parameters)

    def open(self, url: str) -> None:
        """Loads a page and waits until it has loaded."""
        answer = self.call("Page.navigate", url=url)
        assert not answer.get("errorText"), answer
        self.browser.wait("Page.loadEventFired", self.session)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript gives."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def key(self, name: str, code: int, text: str = "") -> None:
        """Presses a key."""
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, path: Path, *, most: int = 6000) -> Path:
        """A screenshot of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def printed(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def heard(self, *methods: str) -> list[dict[str, Any]]:
        """The events of these kinds so far."""
        self.value("1")  # what came before this answer has come
        return [
            e["params"] for e in self.browser.events if e.get("sessionId") == self.session and e["method"] in methods
        ]

    def complaints(self) -> list[Any]:
        """Everything on the console: errors, warnings, refused loads, broken policies."""
        found = self.heard("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Audits.issueAdded")
        # The tests' own clicks are no person's.
        return [event for event in found if "NavigationEntryMarkedSkippable" not in json.dumps(event)]

    def asked(self) -> list[str]:
        """The addresses of all requests, the page's own among them."""
        return [event["request"]["url"] for event in self.heard("Network.requestWillBeSent")]


@contextmanager
def running() -> Iterator[Browser]:
    """A browser with a profile of its own."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    assert program, "there is no Chromium; run scripts/install-servers"
    theirs_in, ours_in = _pipe()
    ours_out, theirs_out = _pipe()

    def place() -> None:
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={folder}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            close_fds=False,
            env=os.environ | {"HOME": folder},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        browser = Browser(process, ours_in, ours_out)
        try:
            yield browser
            browser.call("Browser.close")
        finally:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(ours_in)
            os.close(ours_out)


def _pipe() -> list[int]:
    """The two ends of a pipe, numbered above what the child must have as 3 and 4."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high
