"""Chromium without a screen, spoken to over a pipe; only Python's own library."""

import base64
import json
import os
import select
import subprocess
import sys
import tempfile
import time

LIMIT_S = int(os.environ.get("KURA_LIMIT_S", "120"))


class Browser:
    def __init__(self, home, dark=False):
        self.home = home
        self.next = 0
        self.events = []
        self.buffer = b""
        (to_read, self.write_fd) = os.pipe()
        (self.read_fd, to_write) = os.pipe()
        program = next(p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if os.path.exists(p))
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-sync", "--disable-component-update", "--hide-scrollbars",
            "--window-size=1280,860", f"--user-data-dir={home}", "--remote-debugging-pipe", "about:blank",
        ]
        # The browser reads requests from descriptor 3 and writes answers to 4.
        script = f"exec 3<&{to_read} 4>&{to_write}; exec \"$@\""
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script, "chromium", program, *arguments], pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": home},
        )
        os.close(to_read)
        os.close(to_write)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.ask("Browser.close")
        except Exception:
            pass
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def message(self, limit):
        while b"\0" not in self.buffer:
            left = limit - time.monotonic()
            ready, _, _ = select.select([self.read_fd], [], [], max(left, 0))
            if not ready:
                raise TimeoutError("the browser does not answer")
            part = os.read(self.read_fd, 1 << 20)
            if not part:
                raise EOFError("the browser ended")
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def ask(self, method, session=None, **params):
        self.next += 1
        request = {"id": self.next, "method": method, "params": params}
        if session:
            request["sessionId"] = session
        os.write(self.write_fd, json.dumps(request).encode() + b"\0")
        limit = time.monotonic() + LIMIT_S
        while True:
            found = self.message(limit)
            if found.get("id") == self.next:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']['message']}")
                return found["result"]
            if "method" in found:
                self.events.append(found)

    def tab(self, apart=False):
        where = {"browserContextId": self.ask("Target.createBrowserContext")["browserContextId"]} if apart else {}
        target = self.ask("Target.createTarget", url="about:blank", newWindow=True, width=1280, height=860, **where)["targetId"]
        return Tab(self, self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])


class Tab:
    def __init__(self, browser, session):
        self.browser = browser
        self.session = session
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        return self.browser.ask(method, self.session, **params)

    def goto(self, address):
        self.ask("Page.navigate", url=address)

    def js(self, text):
        found = self.ask("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(f"{text}: {details.get('exception', {}).get('description', details)}")
        return found["result"].get("value")

    def until(self, text, what=None):
        """Waits until an expression holds, and gives its value."""
        limit = time.monotonic() + LIMIT_S
        while True:
            try:
                found = self.js(text)
            except RuntimeError:
                found = None
            if found:
                return found
            if time.monotonic() > limit:
                shown = self.js("document.body.innerText.slice(0, 2000)")
                raise AssertionError(f"never: {what or text}\n{self.js('location.href')}\n{shown}")
            time.sleep(0.05)

    def sees(self, text):
        self.until(f"document.body.innerText.includes({json.dumps(text)})", f"to see {text!r}")

    def click(self, selector, text=None):
        """Clicks the first shown element of a selector, one with the text where it is given."""
        find = (
            f"[...document.querySelectorAll({json.dumps(selector)})].find(e => e.checkVisibility()"
            f" && (!{json.dumps(text)} || e.textContent.includes({json.dumps(text)})))"
        )
        self.until(f"Boolean({find})", f"{selector} with {text!r}")
        self.js(f"{find}.click()")

    def key(self, key, code=None, text=None):
        text = text if text is not None else (key if len(key) == 1 else ("\r" if key == "Enter" else None))
        numbers = {"Enter": 13, "Escape": 27, "Tab": 9, "Backspace": 8, "ArrowDown": 40, "ArrowLeft": 37}
        common = {"key": key, "code": code or key, "windowsVirtualKeyCode": numbers.get(key, 0)}
        down = {**common, "text": text} if text else common
        self.ask("Input.dispatchKeyEvent", type="keyDown", **down)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def dark(self, wanted):
        value = "dark" if wanted else "light"
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def shot(self, name):
        """Sees that the page says nothing odd, and keeps a picture where one is asked for."""
        odd = self.js("document.body.innerText.match(/\\b(false|undefined|null|NaN|object Object)\\b/)?.[0]")
        assert not odd, f"{name}: the page says {odd}"
        place = os.environ.get("KURA_SHOTS")
        if place:
            data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=False)["data"]
            with open(os.path.join(place, f"{name}.png"), "wb") as file:
                file.write(base64.b64decode(data))

    def troubles(self):
        """What scripts threw and what the browser refused."""
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                found.append(event["params"]["exceptionDetails"].get("exception", {}).get("description", "exception"))
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
        return found


def run(scenario):
    with tempfile.TemporaryDirectory(prefix="kura-chromium-") as home, Browser(home) as browser:
        scenario(browser, *sys.argv[1:])
    print("done")
