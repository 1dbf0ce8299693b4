// What happened to one file, and who wrote which of its lines.

import { ask, reply } from "./api.js";
import { clock, day, fromAddress, h, letter, moment, pathText, put, size, toAddress } from "./dom.js";
import { restore } from "./version.js";
import { title } from "./timeline.js";

const PAGE = 100;

function step(version, path) {
  const { letter: how, path: at, from, size: bytes } = version.change;
  const encoded = encodeURIComponent(toAddress(at));
  const before = version.parents[0];
  const old = from ? `&from=${encodeURIComponent(toAddress(from))}` : "";
  const isThere = how !== "-";
  const address = before ? `#/compare/${before}/${version.id}?path=${encoded}${old}` : `#/files/${version.id}/${toAddress(at)}?file`;
  return h("li", { class: "row version" }, letter(how),
    h("a", { href: address, "data-row": true, class: "when" }, moment(version.time)),
    h("span", { class: "what" }, h("span", { class: "title" }, from && `${pathText(from)} → ${pathText(at)} · `, title(version)),
      version.names.map((name) => h("span", { class: "tag" }, name))),
    h("span", { class: "size" }, size(bytes)),
    h("span", { class: "who" }, `${version.user}@${version.host}`),
    h("span", { class: "actions" },
      isThere && h("a", { href: `#/files/${version.id}/${toAddress(at)}?file` }, "view"),
      isThere && h("a", { href: `#/compare/${version.id}/now?path=${encodeURIComponent(toAddress(path))}&from=${encoded}` }, "compare with now"),
      isThere && h("button", { class: "link", onclick: () => restore(version.id, [at], pathText(at)) }, "restore…")));
}

async function blame(place, path) {
  const lines = await ask("blame", { path });
  let last = null;
  const rows = lines.map((line) => {
    const isNew = line.version !== last;
    last = line.version;
    return h("tr", { class: isNew ? "begins" : "" },
      h("td", { class: "origin" }, isNew && h("a", { href: `#/version/${line.version}`, "data-row": true, title: `${moment(line.time)} ${line.version}` },
        `${day(line.time)} ${clock(line.time)}`)),
      h("td", { class: "origin who" }, isNew && `${line.user}@${line.host}`),
      h("td", { class: "number" }, String(line.line)),
      h("td", { class: "text" }, line.text.replace(/\n$/, "")));
  });
  put(place, h("div", { class: "wide" }, h("table", { class: "code blame" }, h("tbody", {}, rows))));
}

export async function fileHistory(place, parts, query) {
  const path = fromAddress(parts.join("/"));
  const address = `#/history/${toAddress(path)}`;
  const isBlame = query.has("blame");
  const tab = (text, href, isHere) => h("a", { class: "button", href, "aria-current": isHere && "page" }, text);
  put(place, h("div", { class: "toolbar" }, h("h2", { class: "path" }, pathText(path)),
    tab("Versions", address, !isBlame), tab("Who wrote which line", `${address}?blame`, isBlame)));
  if (isBlame) {
    await blame(place, path);
    return;
  }
  const list = h("ul", { class: "list" });
  const more = h("button", { class: "more" }, "Older versions");
  let next = null;
  const load = async () => {
    const { data } = await reply("log", { path, max: PAGE + 1, ...(next ? { from: next } : {}) });
    next = data.length > PAGE ? data.pop().id : null;
    list.append(...data.map((version) => step(version, path)));
    more.hidden = next === null;
  };
  more.addEventListener("click", load);
  await load();
  put(place, list, more, h("p", { class: "dim" }, "A time opens what that version changed in this file."));
}
