// The frame: which view is shown, keys, and the state that is always in sight.

import { ask, get, openSession } from "./api.js";
import { choose, h } from "./dom.js";
import { timeline } from "./timeline.js";
import { version } from "./version.js";
import { files } from "./files.js";
import { compare } from "./compare.js";
import { fileHistory } from "./history.js";
import { conflicts } from "./conflicts.js";
import { status, stateOf, withConflicts } from "./status.js";
import { space } from "./space.js";

const VIEWS = { timeline, version, files, compare, history: fileHistory, conflicts, status, space };
const NAV = [["timeline", "Timeline"], ["files", "Files"], ["conflicts", "Conflicts"], ["status", "Now"], ["space", "Space"]];
// Views that are reached from another one.
const WITHIN = { version: "timeline", compare: "timeline", history: "files" };
const EVERY_MS = 2000;

const main = document.getElementById("main");
let shown = 0;
let leave = null;

function failed(error) {
  return h("p", { class: "failure", role: "alert" }, error.message);
}

// The row that had the focus, by address: whoever comes back goes on from there.
const places = new Map();
let here = null;
const rowsOf = (place) => [...place.querySelectorAll("[data-row]")];

// Shows what the address says: `#/VIEW/PART/PART?name=value`.
async function show() {
  const own = ++shown;
  const at = rowsOf(main).indexOf(document.activeElement);
  if (here !== null && at >= 0) places.set(here, at);
  here = location.hash;
  leave?.();
  leave = null;
  const [route, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [name, ...parts] = route.split("/");
  const view = VIEWS[name || "timeline"] ?? timeline;
  for (const link of document.querySelectorAll("#nav a")) {
    const isHere = link.hash === `#/${WITHIN[name] ?? (name || "timeline")}`;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.setAttribute("aria-busy", "true");
  try {
    const place = h("div", { class: "view" });
    const ended = await view(place, parts, new URLSearchParams(query ?? ""));
    if (own !== shown) {
      ended?.();
      return;
    }
    leave = ended ?? null;
    main.replaceChildren(place);
    const row = rowsOf(place)[places.get(here)];
    (row ?? place.querySelector("[data-focus]") ?? main).focus({ preventScroll: true });
    window.scrollTo(0, 0);
    row?.scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (own === shown) main.replaceChildren(failed(error));
  } finally {
    if (own === shown) main.removeAttribute("aria-busy");
  }
}

async function watch() {
  if (!document.hidden) {
    const pill = document.getElementById("state");
    try {
      const now = await withConflicts(await ask("status"));
      const [kind, text] = stateOf(now);
      pill.className = `pill ${kind}`;
      if (pill.textContent !== text) pill.textContent = text;
      document.title = now.conflicts > 0 ? `(${now.conflicts}) kura` : "kura";
      const tab = document.querySelector('#nav a[href="#/conflicts"]');
      tab.textContent = now.conflicts > 0 ? `Conflicts (${now.conflicts})` : "Conflicts";
      window.dispatchEvent(new CustomEvent("kura-status", { detail: now }));
    } catch (error) {
      pill.className = "pill bad";
      pill.textContent = error.isClosed ? "session ended" : "no answer";
      if (error.isClosed) return;
    }
  }
  setTimeout(watch, EVERY_MS);
}

// Rows that can be gone through with keys: anything with `data-row`.
function step(by) {
  const rows = rowsOf(main).filter((row) => row.offsetParent !== null);
  if (rows.length === 0) return;
  const at = rows.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1);
  rows[next].focus();
  rows[next].scrollIntoView({ block: "nearest" });
}

const KEYS = [
  ["1 … 5", "the views"], ["j, ↓ / k, ↑", "next, previous row"], ["Enter", "open it"], ["x", "mark it for comparing"],
  ["c", "compare what is marked"], ["s", "take a snapshot"], ["Backspace", "back"], ["/", "go to the filter"], ["?", "this list"],
];
const help = () =>
  choose("Keys", h("dl", { class: "keys" }, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])), []);

function onKey(event) {
  const isTyping = event.target.closest?.("input, textarea, select, dialog");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const view = NAV[Number(event.key) - 1];
  const act = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    "?": help, Backspace: () => history.back(),
    "/": () => main.querySelector("input[type=search], input[type=datetime-local]")?.focus(),
    x: () => document.activeElement.querySelector?.("input[type=checkbox]")?.click(),
    c: () => main.querySelector("[data-compare]:not([disabled])")?.click(),
    s: () => main.querySelector("[data-snapshot]")?.click(),
  }[event.key] ?? (view && (() => { location.hash = `#/${view[0]}`; }));
  if (!act) return;
  event.preventDefault();
  act();
}

async function start() {
  const nav = document.getElementById("nav");
  nav.replaceChildren(...NAV.map(([name, text]) => h("a", { href: `#/${name}` }, text)),
    h("button", { class: "quiet", title: "Keys", "aria-label": "Keys", onclick: help }, "?"));
  try {
    await openSession();
    const about = await get("/api/about");
    // The mark keeps the slashes where they are though the end of a long name is what is shown.
    document.getElementById("workspace").textContent = `\u200e${about.name}\u200e`;
  } catch (error) {
    document.getElementById("state").textContent = "closed";
    main.replaceChildren(h("section", { class: "closed", role: "alert" }, h("h2", {}, "Not open"), h("p", {}, error.message),
      h("p", {}, "The address that ", h("code", {}, "kura web"), " prints opens the page once, in one browser.")));
    return;
  }
  window.addEventListener("hashchange", show);
  window.addEventListener("kura-reload", show);
  document.addEventListener("keydown", onKey);
  watch();
  await show();
}

start();
