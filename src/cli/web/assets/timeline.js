// All versions, newest first: who, when, how much, on which machine.

import { ask, doing, reply } from "./api.js";
import { choose, clock, day, h, put, size, time, toast } from "./dom.js";

const PAGE = 100;

export function changesText({ added, changed, removed }) {
  return h("span", { class: "counts", title: `${added} added, ${changed} changed, ${removed} removed` },
    added > 0 && h("span", { class: "add" }, `+${added}`),
    changed > 0 && h("span", { class: "mod" }, `~${changed}`),
    removed > 0 && h("span", { class: "del" }, `−${removed}`));
}

const ORIGINS = { automatic: "recorded by itself", init: "the beginning", snapshot: "snapshot", merge: "joined", restore: "restored", revert: "undone", import: "imported" };

export function title(version) {
  if (version.message) return version.message.split("\n", 1)[0];
  return ORIGINS[version.origin] ?? version.origin;
}

function row(version, marked, onMark) {
  const mark = h("input", {
    type: "checkbox", "aria-label": `Mark ${clock(version.time)} for comparing`, tabindex: "-1",
    onclick: (event) => event.stopPropagation(), onchange: (event) => onMark(version, event.target),
  });
  mark.checked = marked.has(version.id);
  const address = `#/version/${version.id}`;
  return h("li", { class: "row version", "data-row": true, tabindex: "0", "data-id": version.id,
    onclick: () => { location.hash = address; },
    onkeydown: (event) => { if (event.key === "Enter") location.hash = address; } },
    mark,
    time(version.time),
    h("span", { class: "what" },
      h("a", { href: address, tabindex: "-1", title: version.message, class: version.message ? "title" : "title dim" }, title(version)),
      version.names.map((name) => h("span", { class: "tag" }, name))),
    changesText(version.counts),
    h("span", { class: "size" }, size(version.counts.bytes)),
    h("span", { class: "who" }, `${version.user}@${version.host}`));
}

export async function snapshot() {
  const message = h("input", { type: "text", placeholder: "What is this state? (may be empty)", "aria-label": "Message" });
  const name = h("input", { type: "text", placeholder: "Name (may be empty)", "aria-label": "Name" });
  const chosen = await choose("Take a snapshot", h("div", { class: "fields" }, message, name), [["take", "Take snapshot"]]);
  if (!chosen) return false;
  const done = await doing(() => reply("snapshot", { message: message.value || null, name: name.value || null }));
  if (done) toast(done.message);
  return done !== null;
}

export async function timeline(place, _parts, query) {
  const marked = new Map();
  const list = h("div", { class: "days" });
  const bar = h("button", { "data-compare": true, disabled: true }, "Compare marked");
  bar.addEventListener("click", () => {
    const [a, b] = [...marked.values()].sort((a, b) => a.generation - b.generation || (a.id < b.id ? -1 : 1));
    location.hash = b ? `#/compare/${a.id}/${b.id}` : `#/compare/${a.id}/now`;
  });
  const onMark = (version, box) => {
    if (box.checked) marked.set(version.id, version);
    else marked.delete(version.id);
    if (marked.size > 2) {
      marked.delete(version.id);
      box.checked = false;
      toast("Two versions are marked already.");
    }
    bar.disabled = marked.size === 0;
    bar.textContent = marked.size === 1 ? "Compare marked with now" : "Compare marked";
  };
  let lastDay = null;
  let group = null;
  const add = (versions) => {
    for (const version of versions) {
      const of = day(version.time);
      if (of !== lastDay) {
        group = h("ul", { class: "list" });
        list.append(h("section", { class: "day" }, h("h3", {}, of), group));
        lastDay = of;
      }
      group.append(row(version, marked, onMark));
    }
  };
  const more = h("button", { class: "more" }, "Older versions");
  const total = h("p", { class: "dim" });
  let next = query.get("from");
  let isLoading = false;
  const load = async () => {
    if (isLoading) return;
    isLoading = true;
    const found = await reply("log", { max: PAGE + 1, ...(next ? { from: next } : {}) });
    const versions = found.data;
    next = versions.length > PAGE ? versions.pop().id : null;
    add(versions);
    total.textContent = found.message;
    more.hidden = next === null;
    isLoading = false;
  };
  more.addEventListener("click", () => doing(load));
  const jump = h("input", { type: "datetime-local", "aria-label": "Versions up to this time", value: query.get("at") });
  jump.addEventListener("change", () => doing(async () => {
    if (!jump.value) return;
    const found = await ask("show", { version: jump.value });
    location.hash = `#/timeline?from=${found.version.id}&at=${encodeURIComponent(jump.value)}`;
  }));
  await load();
  const watcher = new IntersectionObserver((seen) => {
    if (seen.some((one) => one.isIntersecting) && next) doing(load);
  }, { rootMargin: "400px" });
  watcher.observe(more);
  const button = h("button", { "data-snapshot": true, class: "primary" }, "Take a snapshot");
  button.addEventListener("click", async () => {
    if (await snapshot()) window.dispatchEvent(new Event("kura-reload"));
  });
  const fresh = h("button", { hidden: true, class: "fresh" }, "There are newer versions");
  fresh.addEventListener("click", () => {
    location.hash = "#/timeline";
    window.dispatchEvent(new Event("kura-reload"));
  });
  const newest = query.get("from") ? null : list.querySelector("[data-id]")?.dataset.id;
  const onStatus = ({ detail }) => { fresh.hidden = !newest || detail.newest_version === newest; };
  window.addEventListener("kura-status", onStatus);
  put(place,
    h("div", { class: "toolbar" }, h("h2", {}, "Timeline"), button, bar,
      h("label", {}, "up to ", jump), query.get("from") && h("a", { href: "#/timeline" }, "newest")),
    fresh, list, more, total);
  return () => {
    watcher.disconnect();
    window.removeEventListener("kura-status", onStatus);
  };
}
