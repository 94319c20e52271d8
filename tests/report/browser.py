"""Chromium without a window, driven through a pipe (the DevTools protocol): no library, one process
for many pages.

Used by tests, and by hand to look at pages: python -m tests.report.browser PAGE.html OUT-PREFIX
"""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

FOUND = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
"""The browser's path; None where there is none."""
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
        "--hide-scrollbars",
    ),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-extensions",
        "--disable-dev-shm-usage",
    ),
    "--remote-debugging-pipe",
)


class Tab:
    """One tab: it opens a page, says what the page says, and takes its picture."""

    def __init__(self, send, receive, process, downloads):
        self._send, self._receive, self._process = send, receive, process
        self._number, self._held, self._session = 0, b"", None
        self.events = []
        self.downloads = downloads
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def call(self, method, **params):
        """Calls a method of the protocol and gives its result; events that come meanwhile are kept
        in `events`.
        """
        self._number += 1
        wanted = self._number
        session = {} if self._session is None else {"sessionId": self._session}
        self._write(
            json.dumps({"id": wanted, "method": method, "params": params, **session}).encode()
            + b"\0"
        )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            for message in self._messages(1.0):
                if message.get("id") == wanted:
                    if "error" in message:
                        raise RuntimeError(f"{method}: {message['error']['message']}")
                    return message["result"]
                if "method" in message:
                    self.events.append(message)
        raise TimeoutError(method)

    def _write(self, data):
        while data:
            data = data[os.write(self._send, data) :]

    def _messages(self, seconds):
        if self._process.poll() is not None:
            raise RuntimeError(f"the browser has ended with code {self._process.returncode}")
        if not self._held.count(b"\0") and select.select([self._receive], [], [], seconds)[0]:
            self._held += os.read(self._receive, 1 << 20)
        if b"\0" in self._held:
            first, _, self._held = self._held.partition(b"\0")
            yield json.loads(first)

    def run(self, script):
        """The value of a JavaScript expression; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(
                found["exceptionDetails"].get("exception", {}).get("description", "an exception")
            )
        return found["result"].get("value")

    def until(self, script, seconds=60):
        """Waits until a JavaScript expression is true, and gives its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise TimeoutError(script)
            time.sleep(0.05)
        return value

    def resize(self, width, height=900):
        """A viewport of so many CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def dress(self, scheme, media=""):
        """`light` or `dark`; media: `print` to see what is printed."""
        self.call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )

    def open(self, path, width, scheme="light"):
        """Opens a page with the network off and waits until its figures are drawn; forgets earlier
        events.
        """
        self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )
        self.resize(width)
        self.dress(scheme)
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=pathlib.Path(path).absolute().as_uri())
        self.until("document.readyState === 'complete' && document.documentElement.dataset.drawn")

    def complaints(self):
        """Errors and warnings of the console since the page was opened, and exceptions that nobody
        caught.
        """
        found = []
        for event in self.events:
            p = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(
                    p["exceptionDetails"]
                    .get("exception", {})
                    .get("description", p["exceptionDetails"]["text"])
                )
            elif event["method"] == "Log.entryAdded" and p["entry"]["level"] in (
                "error",
                "warning",
            ):
                found.append(p["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and p["type"] in (
                "error",
                "warning",
                "assert",
            ):
                found.append(" ".join(str(a.get("value", a.get("description"))) for a in p["args"]))
        return found

    def requested(self):
        """Every address that was asked for since the page was opened, without data: ones."""
        urls = [
            e["params"]["request"]["url"]
            for e in self.events
            if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def point(self, x, y):
        """Moves the mouse to a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def download(self, name, script):
        """What lands in the downloads as `name` after a script that clicks something."""
        path = pathlib.Path(self.downloads) / name
        path.unlink(missing_ok=True)
        self.run(script)
        end = time.monotonic() + 30
        while not path.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"no {name} came")
            time.sleep(0.05)
            self.run("0")
        return path.read_bytes()

    def picture(self, path, tall=None):
        """The whole page as PNG; `tall`: only so many pixels."""
        height = self.run("document.documentElement.scrollHeight")
        width = self.run("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, tall or height), "scale": 1}
        shot = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))

    def printed(self):
        """The page as PDF, on A4."""
        return base64.b64decode(
            self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)[
                "data"
            ]
        )


@contextlib.contextmanager
def browser():
    """A tab of a browser that is started now and ended with the block."""
    folder = tempfile.mkdtemp()
    there, send = os.pipe()
    receive, back = os.pipe()
    process = None
    try:
        # The browser reads from its descriptor 3 and writes to 4; from 10 on nothing is in their
        # way.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (there, back)]
        command = [
            "bash",
            "-c",
            f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}',
            "bash",
            FOUND,
            *FLAGS,
            f"--user-data-dir={folder}/profile",
            "about:blank",
        ]
        with open(f"{folder}/said", "wb") as said:
            process = subprocess.Popen(command, pass_fds=ends, stdout=said, stderr=said)
        for end in ends:
            os.close(end)
        os.close(there)
        os.close(back)
        os.makedirs(f"{folder}/downloads")
        yield Tab(send, receive, process, f"{folder}/downloads")
    finally:
        os.close(send)
        os.close(receive)
        if process is not None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main(page, prefix):
    """Pictures of a page: phone and desktop, light and dark, and its print."""
    with browser() as tab:
        for width in (400, 800, 1400):
            for scheme in ("light", "dark"):
                tab.open(page, width, scheme)
                tab.picture(f"{prefix}-{width}-{scheme}.png")
                print(width, scheme, tab.complaints(), tab.requested())
        tab.dress("dark")
        pathlib.Path(f"{prefix}.pdf").write_bytes(tab.printed())


if __name__ == "__main__":
    main(*sys.argv[1:])
