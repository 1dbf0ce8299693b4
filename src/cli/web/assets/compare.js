// Two versions: what differs, and one file side by side.

import { ask, fileAddress, post } from "./api.js";
import { count, fromAddress, h, moment, pathText, put, shortId, size, toAddress } from "./dom.js";
import { changeList } from "./version.js";

// Where two lines that stand for each other begin and end alike.
function emphasis(a, b) {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const isLittle = head + tail > Math.max(a.length, b.length) / 3;
  const parts = (text) => isLittle ? [text.slice(0, head), h("mark", {}, text.slice(head, text.length - tail)), text.slice(text.length - tail)] : [text];
  return [parts(a), parts(b)];
}

function line({ tag, before, after }) {
  if (tag === "…") {
    return h("tr", { class: "gap" }, h("td", { colspan: "4" }, `⋯ ${count(before[0], "unchanged line")}`));
  }
  const [old, now] = tag === "~" ? emphasis(before[1], after[1]) : [before?.[1], after?.[1]];
  const side = (found, parts, kind) => [
    h("td", { class: `number ${kind}` }, found ? String(found[0]) : ""),
    h("td", { class: `text ${kind}` }, parts ?? ""),
  ];
  const isOld = tag === "-" || tag === "~";
  const isNew = tag === "+" || tag === "~";
  return h("tr", {}, side(before, old, isOld ? "del" : before ? "" : "none"), side(after, now, isNew ? "add" : after ? "" : "none"));
}

function texts(found, more) {
  if (found.same) return h("p", { class: "notice" }, "Both are the same.");
  return h("div", {},
    h("p", { class: "counts" }, h("span", { class: "add" }, `+${found.added}`), h("span", { class: "del" }, `−${found.removed}`)),
    h("div", { class: "wide" }, h("table", { class: "code diff" },
      h("colgroup", {}, h("col", { class: "number" }), h("col", {}), h("col", { class: "number" }), h("col", {})),
      h("tbody", {}, found.rows.map(line)))),
    found.truncated && h("p", { class: "notice" }, "There is more than is shown here; both files can be downloaded."),
    more);
}

function images(before, after) {
  const one = (side, name) => h("figure", {}, h("figcaption", {}, name),
    side ? h("img", { class: "image", src: fileAddress(side.version, side.path), alt: `${pathText(side.path)}, ${name}` }) : h("p", { class: "dim" }, "not there"));
  return h("div", { class: "pair" }, one(before, "before"), one(after, "after"));
}

// Two files side by side; a missing one is null. `names` are what stands above them.
export async function sideBySide(before, after, names) {
  const box = h("div", { class: "compared" });
  const load = async (context) => {
    const found = await post("/api/compare", { before, after, context });
    const head = h("div", { class: "sides" },
      [[before, names[0], found.size_before], [after, names[1], found.size_after]].map(([side, name, bytes]) =>
        h("div", {}, h("strong", {}, name), " ", h("span", { class: "dim" }, side ? size(bytes) : "not there"), " ",
          side && h("a", { href: fileAddress(side.version, side.path, { download: true }), download: true }, "download"))));
    const more = context < 1000 && h("button", { onclick: () => load(1000) }, "Show more around the changes");
    const shown = {
      text: () => texts(found, found.rows.some((row) => row.tag === "…") && more),
      image: () => images(before, after),
      binary: () => h("p", { class: "notice" }, found.same ? "Both are the same." : "They differ, and are no texts."),
      large: () => h("p", { class: "notice" }, "More than 64 MiB: too large to compare here. Both can be downloaded."),
    }[found.kind]();
    box.replaceChildren(head, shown);
  };
  await load(3);
  return box;
}

// The version that stands for what is there now: recorded, when something changed.
async function now(from) {
  await ask("diff", { from });
  return (await ask("status")).newest_version;
}

export async function compare(place, [from, to], query) {
  const after = (await ask("show", { version: to === "now" ? await now(from) : to })).version;
  const before = (await ask("show", { version: from })).version;
  const name = (version) => version.names[0] ?? moment(version.time);
  put(place,
    h("div", { class: "toolbar" }, h("h2", {}, "Compare"),
      h("a", { href: `#/version/${before.id}`, title: before.id }, name(before)), "→",
      h("a", { href: `#/version/${after.id}`, title: after.id }, to === "now" ? "now" : name(after)),
      h("a", { class: "button", href: `#/compare/${after.id}/${before.id}${query.size ? `?${query}` : ""}` }, "Swap sides")));
  const changes = await ask("diff", { from: before.id, to: after.id });
  if (!query.has("path")) {
    put(place, h("p", { class: "dim" }, count(changes.length, "difference")),
      changeList(changes, (change) => {
        const old = change.from ? `&from=${encodeURIComponent(toAddress(change.from))}` : "";
        return `#/compare/${before.id}/${after.id}?path=${encodeURIComponent(toAddress(change.path))}${old}`;
      }));
    return;
  }
  const path = fromAddress(query.get("path"));
  const found = changes.find((change) => pathText(change.path) === pathText(path));
  const old = query.has("from") ? fromAddress(query.get("from")) : (found?.from ?? path);
  const sides = [
    found?.letter === "+" ? null : { version: before.id, path: old },
    found?.letter === "-" ? null : { version: after.id, path },
  ];
  put(place,
    h("div", { class: "toolbar" }, h("strong", { class: "path" }, pathText(path)),
      h("a", { href: `#/compare/${before.id}/${after.id}` }, `all ${count(changes.length, "difference")}`),
      h("a", { href: `#/history/${toAddress(path)}` }, "history")),
    await sideBySide(sides[0], sides[1], [`${name(before)} (${shortId(before.id)})`, `${name(after)} (${shortId(after.id)})`]));
}
