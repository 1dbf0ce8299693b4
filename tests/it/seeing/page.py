"""The whole page, as somebody uses it."""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from browser import run  # noqa: E402


def scenario(browser, address):
    tab = browser.tab()
    tab.goto(address)
    tab.sees("the first state")
    token = address.split("token=")[1]
    entries = tab.ask("Page.getNavigationHistory")["entries"]
    assert not any(token in entry["url"] for entry in entries), "the token is left in the history of the browser"
    assert tab.js("document.cookie") == "", "scripts can read the cookie"
    assert token not in tab.js("JSON.stringify([localStorage, sessionStorage])")
    origin = address.split("/#")[0]
    home = lambda place: tab.goto(f"{origin}/#/{place}")

    # The timeline: who, when, how much; a name.
    tab.sees("published")
    tab.sees("the second state")
    assert tab.js("document.querySelectorAll('.row.version').length") >= 3
    assert tab.js("[...document.querySelectorAll('.row.version .tag')].some(e => e.textContent === 'v1')")
    tab.shot("timeline")

    # A version, what it changed, and a file of it side by side.
    tab.click(".row.version .title", "the second state")
    tab.sees("What it changed")
    tab.shot("version")
    tab.click(".row.change a", "notes.txt")
    tab.until("document.querySelectorAll('table.diff td.add').length > 0")
    cells = tab.js("[...document.querySelectorAll('table.diff td.text')].map(e => [e.className, e.textContent])")
    assert ["text del", "beta"] in cells and ["text add", "better"] in cells and ["text ", "alpha"] in cells, cells
    tab.shot("diff")
    tab.js("history.back()")
    tab.click(".row.change a", "picture.png")
    tab.until("[...document.querySelectorAll('.pair img')].filter(e => e.complete && e.naturalWidth > 0).length === 2")
    tab.shot("images")

    # Browsing; a name that would be markup is text.
    home("files")
    tab.click(".row.item a", "inner/")
    tab.sees("deep.txt")
    tab.click(".crumbs a", "root")
    tab.sees("<img src=x onerror=alert(1)>.txt")
    assert not tab.js("Boolean(document.querySelector('.list img'))")
    tab.sees("(symlink)")
    tab.shot("files")
    tab.click(".row.item a", "notes.txt")
    tab.until("document.querySelectorAll('table.code tr').length === 3")
    tab.click("a.button", "History of this file")
    tab.until("document.querySelectorAll('.row.version').length >= 2")
    tab.shot("history")
    tab.click("a.button", "Who wrote which line")
    tab.until("document.querySelectorAll('table.blame tr').length === 3")
    tab.shot("blame")

    # Restoring, with what would change shown first.
    home("history/notes.txt")
    tab.until("document.querySelectorAll('.row.version').length >= 2")
    tab.js("[...document.querySelectorAll('button.link')].filter(e => e.textContent === 'restore…').at(-1).click()")
    tab.until("document.querySelector('dialog[open] [data-trial=\"1\"]')?.textContent.includes('notes.txt')")
    tab.shot("restore")
    tab.click("dialog button.primary", "Restore 1 path")
    tab.until("document.querySelector('#toasts').textContent.includes('as in version')")

    # A conflict, settled.
    home("conflicts")
    tab.until("document.querySelectorAll('details.conflict[open] table.diff td.add').length > 0")
    tab.until("document.querySelector('#nav a[aria-current]').textContent === 'Conflicts (1)'")
    tab.shot("conflicts")
    tab.dark(True)
    tab.shot("dark-diff")
    tab.dark(False)
    tab.click("[data-take=theirs]")
    tab.click("dialog button.primary", "Take theirs")
    tab.sees("No conflicts")
    tab.until("document.querySelector('#nav a[aria-current]').textContent === 'Conflicts'")

    # What is going on; how large it was; what would be kept.
    home("status")
    tab.sees("Nothing is locked.")
    tab.sees("Not published yet")
    tab.shot("status")
    home("space")
    tab.until("document.querySelector('svg.plot path.line')?.getAttribute('d').length > 10")
    tab.click("button", "Preview")
    tab.sees("would be forgotten")
    tab.click("button", "Count what the store holds")
    tab.sees("for all versions together")
    tab.until("document.querySelectorAll('svg.plot path.line').length === 2")
    tab.click("button", "Look for what nobody needs")
    tab.sees("Nobody needs")
    tab.shot("space")

    # By keys alone.
    tab.key("1")
    tab.until("location.hash === '#/timeline' && document.querySelectorAll('.row.version').length > 3")
    tab.key("j")
    tab.key("j")
    second = tab.js("document.activeElement.dataset.id")
    assert second == tab.js("document.querySelectorAll('.row.version')[1].dataset.id")
    tab.key("x")
    tab.key("j")
    tab.key("x")
    tab.key("c")
    tab.until("location.hash.startsWith('#/compare/')")
    tab.sees("difference")
    tab.key("1")
    tab.until("location.hash === '#/timeline' && document.querySelectorAll('.row.version').length > 3")
    tab.key("j")
    tab.key("Enter")
    tab.until("location.hash.startsWith('#/version/')")
    opened = tab.js("location.hash")
    tab.key("Backspace")
    tab.until("location.hash === '#/timeline' && document.activeElement.dataset.id")
    assert opened.endswith(tab.js("document.activeElement.dataset.id")), "going back loses the place"
    tab.key("?")
    tab.until("document.querySelector('dialog[open]')?.textContent.includes('Keys')")
    tab.shot("keys")
    tab.key("Escape")
    tab.until("!document.querySelector('dialog[open]')")
    tab.key("Tab")
    outline = tab.js("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "where the focus is cannot be seen"

    # Dark where the system is.
    light = tab.js("getComputedStyle(document.body).backgroundColor")
    tab.dark(True)
    assert tab.js("getComputedStyle(document.body).backgroundColor") != light
    for place in ("timeline", "files", "space"):
        home(place)
        tab.until("!document.querySelector('main').hasAttribute('aria-busy')")
        tab.js("new Promise(done => setTimeout(done, 300))")
        tab.shot(f"dark-{place}")
    troubles = tab.troubles()
    assert not troubles, troubles

    # The address was used; nobody else gets in by it.
    other = browser.tab(apart=True)
    other.goto(address)
    other.sees("used already")
    other.shot("closed")
    answer = other.js("fetch('/api/about').then(r => r.status)")
    assert answer == 401, answer
    # Another page of this browser reads nothing and changes nothing, though the browser has the cookie.
    stranger = browser.tab()
    stranger.goto("data:text/html,stranger")
    stranger.until("document.body.textContent.includes('stranger')")
    for request in ("{credentials: 'include'}", "{credentials: 'include', method: 'POST', mode: 'no-cors', body: '{\"op\":\"snapshot\"}'}"):
        text = f"fetch({json.dumps(origin)} + '/api/ask', {request}).then(r => r.type === 'opaque' ? 'sent' : r.text(), () => 'refused')"
        assert stranger.js(text) in ("refused", "sent")
    stranger.goto(f"data:text/html,<iframe src='{origin}/'></iframe>")


run(scenario)
