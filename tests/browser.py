"""A headless Chromium that is told what to do over a pipe (the Chrome DevTools Protocol), without further packages."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip


@dataclass
class Seen:
    """What a page did while it was opened.

    Args:
        messages: what it wrote on the console, errors and violations of its policy among them.
        requests: addresses that it asked for, its own first.
    """

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """A browser with one page.

    Args:
        folder: for its profile.
        limit_s: seconds that a page or an answer may need.
    """

    def __init__(self, folder: Path, limit_s: float = 60.0) -> None:
        assert CHROMIUM is not None
        self._limit_s, self._number, self._buffer = limit_s, 0, b""
        self._seen = Seen()
        (commands, self._to), (self._from, answers) = os.pipe(), os.pipe()
        # Chromium reads descriptor 3 and writes descriptor 4; bash gives the ends of the pipes these numbers.
        line = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, CHROMIUM, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")

    _session: str | None = None

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, page: Path | str, width: int, height: int = 900, dark: bool = False) -> Seen:
        """Open a file, or an address, in a window of this size, in pixels."""
        self._seen = Seen()
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        url = page.absolute().as_uri() if isinstance(page, Path) else page
        # By way of an empty page: of an address that differs after "#" only, nothing would be loaded.
        for address in ("about:blank", url):
            self._loaded, end = False, time.monotonic() + self._limit_s
            self._ask("Page.navigate", url=address)
            while not self._loaded:
                self._receive(end)
        self._seen.requests = [r for r in self._seen.requests if r != "about:blank"]
        self.value("1")  # what the page has reported until here has arrived
        return self._seen

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is on the page."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression is true.

        Raises:
            AssertionError: it does not become so.
        """
        end = time.monotonic() + self._limit_s
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self._ask("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key: Enter, Tab, Escape, ArrowDown, ..."""
        code = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        number = code.get(key, 40)
        for kind, more in (("keyDown", text), ("keyUp", {})):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=number, **more)

    def names(self) -> list[tuple[str, str]]:
        """Role and accessible name of everything on the page that a screen reader tells."""
        nodes = self._ask("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node.get("ignored")]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]

    def picture(self, to: Path, top: float = 0.0, height: float | None = None) -> None:
        """Write the page as PNG, from ``top`` on, in pixels; ``height`` None: to its end."""
        width, whole = self.value("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": min(height or whole, whole - top), "scale": 1}
        answer = self._ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        to.write_bytes(base64.b64decode(answer["data"]))

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self._limit_s
        while True:
            answer = self._receive(end)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self, end: float) -> dict[str, Any]:
        """The next message; what it tells of the page is kept."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no answer of the browser in {self._limit_s:.0f} s"
            read = os.read(self._from, 1 << 16)
            assert read, "the browser has ended"
            self._buffer += read
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self._seen.requests.append(parameters["request"]["url"])
        elif method == "Log.entryAdded":
            self._seen.messages.append(parameters["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self._seen.messages.append(json.dumps(parameters))
        return message

    _loaded = False
