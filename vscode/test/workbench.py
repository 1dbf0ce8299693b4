"""The extension in a real VS Code in a real browser, on a real mount. KURA_PROGRAM names the program; KURA_SHOTS, a
directory for pictures."""

import base64
import contextlib
import glob
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WORKBENCH = os.path.join(HERE, "../workbench/node_modules")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "../../tests/it/seeing"))
from browser import LIMIT_S, Browser  # noqa: E402

PROGRAM = os.path.abspath(os.environ.get("KURA_PROGRAM", os.path.join(HERE, "../../target/debug/kura")))
KEYS = {"Enter": 13, "Escape": 27, "F1": 112, "s": 83}
CONTROL = 2
SETTINGS = {
    "security.workspace.trust.enabled": False, "chat.disableAIFeatures": True, "workbench.startupEditor": "none",
    "telemetry.telemetryLevel": "off", "extensions.autoCheckUpdates": False, "kura.pollSeconds": 1,
    "workbench.secondarySideBar.defaultVisibility": "hidden", "diffEditor.useInlineViewWhenSpaceIsLimited": False,
}


def until(what, holds):
    limit = time.monotonic() + LIMIT_S
    while not (found := holds()):
        assert time.monotonic() < limit, f"never: {what}"
        time.sleep(0.05)
    return found


class Machine:
    """A mount of the store with a state of its own."""

    def __init__(self, home, name):
        self.mountpoint = os.path.join(home, name)
        os.mkdir(self.mountpoint)
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("KURA_")}, "HOME": home,
            "KURA_PASSPHRASE": "correct horse battery staple", "KURA_STATE_DIR": f"{home}/{name}.state",
            "KURA_CACHE_DIR": f"{home}/{name}.cache",
        }

    def kura(self, *args):
        return subprocess.run([PROGRAM, *args], env=self.env, check=True, stdout=subprocess.PIPE, text=True).stdout

    def at(self, *args):
        return self.kura(*args, "-w", self.mountpoint)

    def file(self, name):
        return os.path.join(self.mountpoint, name)

    def read(self, name="notes.txt"):
        with open(self.file(name), encoding="utf-8") as file:
            return file.read()

    def write(self, content, name="notes.txt"):
        with open(self.file(name), "w", encoding="utf-8") as file:
            file.write(content)

    @contextlib.contextmanager
    def mounted(self, store):
        self.kura("mount", store, self.mountpoint)
        try:
            yield self
        finally:
            self.kura("unmount", "--force", self.mountpoint)


@contextlib.contextmanager
def served(home):
    """VS Code's own server with the extension; gives the address that opens it."""
    code = os.path.join(WORKBENCH, "code-server/lib/vscode")
    [node] = glob.glob(os.path.join(WORKBENCH, "node-linux-*/bin/node"))
    data = os.path.join(home, "code")
    os.makedirs(os.path.join(data, "data/User"))
    with open(os.path.join(data, "data/User/settings.json"), "w", encoding="utf-8") as file:
        json.dump(SETTINGS, file)
    token = os.path.join(home, "token")
    with open(token, "w", encoding="utf-8") as file:
        file.write(secrets.token_hex(16))
    command = [node, os.path.join(code, "out/server-main.js"), "--accept-server-license-terms", "--server-data-dir", data]
    env = {"HOME": home, "PATH": os.environ["PATH"], "TMPDIR": home}
    log = os.path.join(home, "server.log")
    with open(log, "w", encoding="utf-8") as out:
        vsix = os.path.join(HERE, "../kura.vsix")
        subprocess.run([*command, "--install-extension", vsix], env=env, cwd=home, check=True, stdout=out, stderr=out)
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0", "--connection-token-file", token, "--telemetry-level", "off"],
            env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )

    def said():
        assert server.poll() is None, "the server ended"
        with open(log, encoding="utf-8") as file:
            return re.search(r"Server bound to 127\.0\.0\.1:(\d+)", file.read())

    try:
        port = until("the server listens", said).group(1)
        with open(token, encoding="utf-8") as file:
            yield f"http://127.0.0.1:{port}/?tkn={file.read()}"
    except BaseException:
        with open(log, encoding="utf-8") as file:
            print("".join(line for line in file if re.match(r"\[\d|<", line))[-4000:], file=sys.stderr)
        raise
    finally:
        # With what it started, which would keep the mount.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class Code:
    """A window of VS Code. It listens to the mouse and the keys themselves, not to what scripts make of them."""

    def __init__(self, tab):
        self.tab = tab
        self.shots = 0

    def find(self, selector, text=None):
        return (
            f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.checkVisibility() && (!{json.dumps(text)}"
            f" || [e.textContent, e.ariaLabel, e.title].join(' ').includes({json.dumps(text)})))"
        )

    def has(self, selector, text=None):
        self.tab.until(f"{self.find(selector, text)}.length > 0", f"{selector} with {text!r}")

    def has_not(self, selector, text=None):
        self.tab.until(f"{self.find(selector, text)}.length == 0", f"no {selector} with {text!r}")

    def text(self, selector, text=None):
        """The lines that an editor shows."""
        self.has(selector, text)
        lines = f"[...{self.find(selector, text)}[0].querySelectorAll('.view-line')]"
        placed = f"{lines}.map(e => [parseFloat(e.style.top), e.textContent]).sort((a, b) => a[0] - b[0]).map(e => e[1])"
        return [line.replace("\u00a0", " ") for line in self.tab.js(placed)]

    def shows(self, selector, text, inside=None):
        until(f"{selector} shows {text!r}", lambda: "\n".join(self.text(selector, inside)) == text)

    def point(self, selector, text=None, press=True):
        self.has(selector, text)
        middle = "(e => { const r = e?.getBoundingClientRect(); return r && [r.x + r.width / 2, r.y + r.height / 2]; })"
        places = []

        def rests():
            places.append(self.tab.js(f"{middle}({self.find(selector, text)}[0])"))
            return places[-1] and places[-5:] == [places[-1]] * 5

        until(f"{selector} with {text!r} rests", rests)
        x, y = places[-1]
        self.tab.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if press else ():
            self.tab.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key, modifiers=0):
        for kind in ("rawKeyDown", "keyUp"):
            self.tab.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=f"Key{key.upper()}" if len(key) == 1 else key,
                windowsVirtualKeyCode=KEYS[key], modifiers=modifiers,
            )

    def answer(self, text):
        """Types into the input that is shown."""
        self.tab.until("document.activeElement.matches('.quick-input-widget input')", "an input")
        self.tab.ask("Input.insertText", text=text)

    def choose(self, text):
        """Takes a line of the list that is shown."""
        self.has(".quick-input-list .monaco-list-row", text)
        self.point(".quick-input-list .monaco-list-row", text)

    def command(self, name):
        def opens():
            # A window that is busy with something else passes over the key.
            self.press("F1")
            time.sleep(0.5)
            return self.tab.js("document.activeElement.matches('.quick-input-widget input')")

        until("the command palette opens", opens)
        self.answer(f"kura: {name}")
        self.choose(f"kura: {name}")

    def bar(self, text):
        self.has(".statusbar-item", text)

    def shot(self, name):
        place = os.environ.get("KURA_SHOTS")
        self.shots += 1
        if place:
            data = self.tab.ask("Page.captureScreenshot", format="png")["data"]
            with open(os.path.join(place, f"{self.shots:02}-{name}.png"), "wb") as file:
                file.write(base64.b64decode(data))


BASE = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n"
OURS = BASE.replace("two", "our two").replace("five", "our five")
THEIRS = BASE.replace("two", "their two").replace("eight", "their eight")
MERGED = BASE.replace("two", "their two").replace("five", "our five").replace("eight", "their eight")


def collide(ours, other):
    """Both machines change the same line."""
    other.write(THEIRS)
    other.at("snapshot", "-m", "theirs")
    other.at("flush", "--wait=60s")
    ours.write(OURS)
    ours.at("snapshot", "-m", "ours")
    ours.at("sync")
    [found] = json.loads(ours.at("conflicts", "--json"))
    return found["beside"]


def merge_in_the_editor(code, ours, other):
    beside = collide(ours, other)
    code.bar("1 conflict")
    code.shot("told")
    code.point(".notifications-toasts .monaco-button", "Resolve…")
    code.choose("Merge editor")
    code.has(".merge-editor", "1 Conflict Remaining")
    begun = MERGED.replace("their two", "two")
    for pane, text in [("Theirs", THEIRS), ("Ours", OURS), ("Result", begun)]:
        code.shows(".merge-editor .code-view", text, pane)
    code.shot("merging")
    code.point(".merge-editor a", "Accept Theirs")
    code.has(".merge-editor", "0 Conflicts Remaining")
    code.press("s", CONTROL)
    code.has(".tab.active:not(.dirty)", "Merging")
    assert ours.read() == OURS
    code.shot("merged")
    code.point(".editor-actions .action-label", "Complete the Merge")
    until("the merge is written", lambda: ours.read() == MERGED)
    until("the conflict is resolved", lambda: json.loads(ours.at("conflicts", "--json")) == [])
    assert not os.path.exists(ours.file(beside))
    code.has_not(".merge-editor")
    code.has_not(".statusbar-item", "conflict")
    code.shot("completed")


def look_at_history(code, ours):
    """The view beside the source control; what a version changed, and how it differs from now."""
    code.point(".activitybar .action-label", "Source Control")
    code.point(".pane-header", "Kura History")
    rows = ".pane-body .monaco-list-row"
    for title in ("automatic", "ours", "the base"):
        code.has(rows, title)
    code.point(rows, "ours")
    code.shows(".monaco-diff-editor .editor.original", BASE)
    code.shows(".monaco-diff-editor .editor.modified", OURS)
    code.shot("history")
    row = f"{rows}[aria-label*='the base']"
    code.point(row, press=False)
    code.point(f"{row} .action-label", "Compare with the File as It Is")
    code.has(".tab.active", "↔ now")
    code.shows(".monaco-diff-editor .editor.modified", MERGED)
    code.shot("compared")


def restore(code, ours):
    row = ".pane-body .monaco-list-row[aria-label*='the base']"
    code.point(row, press=False)
    code.point(f"{row} .action-label", "Restore This Version")
    code.has(".monaco-dialog-box", "M notes.txt")
    code.shot("asked")
    code.point(".monaco-dialog-box .monaco-button", "Restore")
    code.has_not(".monaco-dialog-box")
    until("restored", lambda: ours.read() == BASE)
    code.shows(".monaco-diff-editor .editor.modified", BASE)
    code.shot("restored")


def compare_with(code):
    code.point(".tab", "notes.txt")
    code.command("Compare with a Version")
    code.has(".quick-input-list .monaco-list-row", "the base")
    code.shot("versions")
    code.choose("ours")
    code.shows(".monaco-diff-editor .editor.original", OURS)
    code.shows(".monaco-diff-editor .editor.modified", BASE)


def lock_and_snapshot(code, ours):
    code.command("Lock This File")
    code.bar("locked")
    assert [lock["path"] for lock in json.loads(ours.at("locks", "--json"))] == ["notes.txt"]
    code.shot("locked")
    code.command("Unlock This File")
    code.has_not(".statusbar-item", "locked")
    code.command("Take a Snapshot")
    code.answer("from the editor")
    code.press("Enter")
    until("the snapshot", lambda: "from the editor" in ours.at("log"))


def main():
    with contextlib.ExitStack() as stack:
        home = os.path.realpath(stack.enter_context(tempfile.TemporaryDirectory(prefix="kura-workbench-")))
        store = os.path.join(home, "store")
        ours, other = Machine(home, "ours"), Machine(home, "other")
        ours.kura("init", "--kdf-memory-mib", "8", store)
        stack.enter_context(ours.mounted(store))
        ours.write(BASE)
        ours.at("snapshot", "-m", "the base")
        ours.at("flush", "--wait=60s")
        stack.enter_context(other.mounted(store))
        assert other.read() == BASE
        address = stack.enter_context(served(home))
        browser = stack.enter_context(Browser(os.path.join(home, "chromium")))
        code = Code(browser.tab())
        opened = json.dumps([["openFile", f"vscode-remote://remote{ours.file('notes.txt')}"]])
        code.tab.goto(f"{address}&folder={ours.mountpoint}&payload={opened}")
        code.bar("kura: published")
        code.shot("opened")
        try:
            merge_in_the_editor(code, ours, other)
            look_at_history(code, ours)
            restore(code, ours)
            compare_with(code)
            lock_and_snapshot(code, ours)
        except BaseException:
            code.shot("failed")
            raise
    print("done")


main()
