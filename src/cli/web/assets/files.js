// The files of a version as directories, and one file as it was.

import { ask, fileAddress, firstBytes } from "./api.js";
import { count, fromAddress, h, join, moment, pathText, put, shortId, size, toAddress } from "./dom.js";
import { restore } from "./version.js";
import { post } from "./api.js";

const PREVIEW_MAX = 512 * 1024;

async function newest() {
  return (await ask("show", { version: "latest" })).version;
}

function crumbs(version, path) {
  const parts = [h("a", { href: `#/files/${version.id}` }, "root")];
  if (typeof path !== "string") parts.push(" / ", pathText(path));
  else {
    const names = path.split("/").filter((name) => name);
    names.forEach((name, at) => parts.push(" / ",
      h("a", { href: `#/files/${version.id}/${toAddress(names.slice(0, at + 1).join("/"))}` }, name)));
  }
  return h("nav", { class: "crumbs", "aria-label": "Path" }, parts);
}

function icon(kind) {
  const shown = { directory: "▸", symlink: "↪", file: "·" }[kind] ?? "◦";
  return h("span", { class: "icon", "aria-hidden": "true" }, shown);
}

function item(version, dir, { name, kind, size: bytes, mtime_ns: mtime }) {
  const path = join(dir, name);
  const place = `${version.id}/${toAddress(path)}`;
  const isOpen = kind === "directory" || kind === "file";
  const text = kind === "directory" ? `${pathText(name)}/` : pathText(name);
  return h("li", { class: "row item" }, icon(kind),
    isOpen ? h("a", { href: `#/files/${place}${kind === "file" ? "?file" : ""}`, "data-row": true, class: "path" }, text)
      : h("span", { class: "path dim" }, `${text} (${kind})`),
    h("span", { class: "size" }, size(bytes)),
    h("span", { class: "dim when" }, moment(new Date(mtime / 1e6).toISOString())));
}

export function textOf(bytes) {
  if (bytes.subarray(0, 8000).includes(0)) return null;
  return new TextDecoder("utf-8").decode(bytes);
}

// A file as it is in a version: an image, its text, or that it is neither.
export async function preview(version, path) {
  const { bytes, size: whole, media } = await firstBytes(version, path, PREVIEW_MAX);
  if (media.startsWith("image/")) return h("img", { class: "image", src: fileAddress(version, path), alt: pathText(path) });
  const text = textOf(bytes);
  if (text === null) return h("p", { class: "dim" }, `No text, ${size(whole)}.`);
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return h("div", {},
    h("table", { class: "code" }, h("tbody", {}, lines.map((line, at) =>
      h("tr", {}, h("td", { class: "number" }, String(at + 1)), h("td", { class: "text" }, line))))),
    lines.length === 0 && h("p", { class: "dim" }, "Empty."),
    whole > bytes.length && h("p", { class: "notice" }, `The first ${size(bytes.length)} of ${size(whole)} are shown.`));
}

async function file(place, version, path) {
  const isNewest = version.isNewest;
  put(place,
    h("div", { class: "toolbar" },
      h("a", { class: "button", href: `#/history/${toAddress(path)}` }, "History of this file"),
      h("a", { class: "button", href: `#/history/${toAddress(path)}?blame` }, "Who wrote which line"),
      !isNewest && h("a", { class: "button", href: `#/compare/${version.id}/now?path=${encodeURIComponent(toAddress(path))}` }, "Compare with now"),
      !isNewest && h("button", { onclick: () => restore(version.id, [path], pathText(path)) }, "Restore…"),
      h("a", { class: "button", href: fileAddress(version.id, path, { download: true }), download: true }, "Download")),
    await preview(version.id, path));
}

export async function files(place, [id, ...rest], query) {
  const latest = await newest();
  const version = id ? (await ask("show", { version: id })).version : latest;
  version.isNewest = version.id === latest.id;
  const path = fromAddress(rest.join("/"));
  put(place,
    h("div", { class: "toolbar" }, h("h2", {}, "Files"),
      h("a", { href: `#/version/${version.id}`, class: "dim" },
        version.isNewest ? `newest version, ${moment(version.time)}` : `as of ${moment(version.time)} (${shortId(version.id)})`),
      !version.isNewest && h("a", { href: "#/files" }, "newest")),
    crumbs(version, path));
  if (query.has("file")) {
    await file(place, version, path);
    return;
  }
  const { items, more } = await post("/api/list", { version: version.id, path });
  const filter = h("input", { type: "search", placeholder: "Filter names", "aria-label": "Filter names" });
  const list = h("ul", { class: "list" }, items.map((one) => item(version, path, one)));
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase();
    for (const row of list.children) row.hidden = !row.querySelector(".path").textContent.toLowerCase().includes(wanted);
  });
  const where = path === "" ? "The whole workspace" : pathText(path);
  put(place,
    h("div", { class: "toolbar" }, filter,
      !version.isNewest && h("button", { onclick: () => restore(version.id, path === "" ? [] : [path], where) }, "Restore this directory…")),
    items.length === 0 ? h("p", { class: "dim" }, "Empty.") : list,
    more > 0 && h("p", { class: "notice" }, `${count(more, "more name")} not shown; the mount has them all.`));
}
