// One version: what it holds, what it changed, and what can be done with it.

import { ask, doing, reply } from "./api.js";
import { choose, count, h, letter, moment, pathText, put, shortId, size, time, toAddress, toast } from "./dom.js";
import { title } from "./timeline.js";

const ROWS_MAX = 2000;

export function changeList(changes, address) {
  const rows = changes.slice(0, ROWS_MAX).map((change) => {
    const name = change.from ? `${pathText(change.from)} → ${pathText(change.path)}` : pathText(change.path);
    const isDir = change.kind === "directory";
    const link = change.kind === "file" ? address(change) : null;
    const sizes = change.size_before !== undefined && change.size_after !== undefined && change.size_before !== change.size_after
      ? `${size(change.size_before)} → ${size(change.size_after)}` : size(change.size_after ?? change.size_before);
    return h("li", { class: "row change" }, letter(change.letter),
      link ? h("a", { href: link, "data-row": true, class: "path" }, name) : h("span", { class: "path" }, isDir ? `${name}/` : name),
      h("span", { class: "size" }, sizes));
  });
  const more = changes.length - rows.length;
  return h("div", {}, h("ul", { class: "list" }, rows), more > 0 && h("p", { class: "dim" }, `and ${count(more, "more change")}`));
}

// Restores after showing what would change.
export async function restore(version, paths, what) {
  const trial = await doing(() => reply("restore", { version, paths, dry_run: true }));
  if (!trial) return;
  const { changes, skipped } = trial.data;
  if (changes.length === 0) {
    toast("Nothing differs from that version.");
    return;
  }
  const body = h("div", {}, h("p", {}, `${what} would become as it was; ${count(changes.length, "path")} would change. `,
    "What is there now stays in the history."),
    h("div", { class: "scroll", "data-trial": changes.length }, changeList(changes, () => null)),
    skipped?.length > 0 && h("p", { class: "dim" }, `${count(skipped.length, "reserved name")} would be passed over.`));
  if (!(await choose("Restore", body, [["restore", `Restore ${count(changes.length, "path")}`]]))) return;
  const done = await doing(() => reply("restore", { version, paths }));
  if (!done) return;
  toast(done.message);
  window.dispatchEvent(new Event("kura-reload"));
}

async function revert(version) {
  const body = h("p", {}, "What this version changed is undone, and what came after stays. Where both touched the same file, it is kept and the earlier state is put beside it.");
  if (!(await choose("Undo this version", body, [["undo", "Undo it"]]))) return;
  const done = await doing(() => reply("revert", { version }));
  if (done) toast(done.message);
}

async function name(version) {
  const text = h("input", { type: "text", "aria-label": "Name", placeholder: "Name", required: true });
  if (!(await choose("Name this version", h("div", { class: "fields" }, text), [["name", "Name it"]])) || !text.value) return;
  if (await doing(() => reply("tag", { version, name: text.value }))) window.dispatchEvent(new Event("kura-reload"));
}

async function unname(tag) {
  if (!(await choose(`Take the name “${tag}” away?`, h("p", {}, "The version stays."), [["take", "Take away"]]))) return;
  if (await doing(() => reply("untag", { name: tag }))) window.dispatchEvent(new Event("kura-reload"));
}

export async function version(place, [id]) {
  const { version: found, changes } = await ask("show", { version: id, changes: true });
  const parent = found.parents[0];
  const button = (text, act, kind) => h("button", { class: kind, onclick: act }, text);
  const facts = [
    ["Recorded", time(found.time, moment(found.time))],
    ["By", `${found.user} on ${found.host}`],
    ["Holds", `${count(found.counts.files, "file")}, ${count(found.counts.dirs, "directory", "directories")}, ${size(found.counts.bytes)}`],
    ["Made from", found.parents.length === 0 ? "nothing" : found.parents.map((of) => [h("a", { href: `#/version/${of}` }, shortId(of)), " "])],
    ["Id", h("code", {}, found.id)],
  ];
  put(place,
    h("div", { class: "toolbar" }, h("h2", {}, title(found)), found.names.map((tag) =>
      h("button", { class: "tag", title: `Take the name ${tag} away`, onclick: () => unname(tag) }, tag))),
    found.message?.includes("\n") && h("pre", { class: "message" }, found.message),
    h("div", { class: "toolbar" },
      h("a", { class: "button", href: `#/files/${found.id}` }, "Browse files"),
      h("a", { class: "button", href: `#/compare/${found.id}/now` }, "Compare with now"),
      button("Restore everything…", () => restore(found.id, [], "The whole workspace")),
      parent && button("Undo…", () => revert(found.id)),
      button("Name…", () => name(found.id))),
    h("dl", { class: "facts" }, facts.map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])),
    h("h3", {}, parent ? "What it changed" : "The first version"),
    changes === null ? h("p", { class: "dim" }, "The version before was forgotten; what this one changed is not known any more.")
      : changes.length === 0 ? h("p", { class: "dim" }, "Nothing.")
        : changeList(changes, (change) =>
          `#/compare/${parent}/${found.id}?path=${encodeURIComponent(toAddress(change.path))}${change.from ? `&from=${encodeURIComponent(toAddress(change.from))}` : ""}`));
}
