// Files that two machines changed at once: both side by side, and which of them stays.

import { ask, doing, reply } from "./api.js";
import { choose, count, h, pathText, put, toast } from "./dom.js";
import { sideBySide } from "./compare.js";
import { knowConflicts } from "./status.js";

const TAKES = [
  ["ours", "Take ours", "The file that kept its name stays; the other one goes."],
  ["theirs", "Take theirs", "The other one takes the name; ours goes."],
  ["both", "Keep both", "The other one gets a name of its own beside ours."],
  ["merge", "Merge", "Both texts are joined line by line; where the same lines differ, marks stand in the text."],
];

async function settle({ path }, [take, text, what]) {
  const body = h("p", {}, pathText(path), ": ", what, " Both states stay in the history.");
  if (!(await choose(text, body, [[take, text]]))) return;
  const done = await doing(() => reply("resolve", { path, take }));
  if (!done) return;
  toast(done.message);
  window.dispatchEvent(new Event("kura-reload"));
}

function conflict(found, version, isOpen) {
  const box = h("details", { class: "conflict" },
    h("summary", { "data-row": true, class: "path" }, pathText(found.path), " ", h("span", { class: "dim" }, pathText(found.beside))));
  const open = async () => {
    if (!box.open || box.dataset.loaded) return;
    box.dataset.loaded = "true";
    const buttons = TAKES.map((take) => h("button", { "data-take": take[0], title: take[2], onclick: () => settle(found, take) }, take[1]));
    const sides = [{ version, path: found.path }, { version, path: found.beside }];
    const compared = await doing(() => sideBySide(sides[0], sides[1], ["ours", "theirs"]));
    box.append(h("div", { class: "toolbar" }, buttons), compared ?? h("p", { class: "dim" }, "Only one of the two is there any more."));
  };
  box.addEventListener("toggle", open);
  box.open = isOpen;
  return box;
}

export async function conflicts(place) {
  const found = await ask("conflicts");
  const version = (await ask("status")).newest_version;
  knowConflicts(version, found.length);
  put(place, h("div", { class: "toolbar" }, h("h2", {}, "Conflicts"), h("span", { class: "dim" }, found.length > 0 && count(found.length, "file"))));
  if (found.length === 0) {
    put(place, h("p", { class: "empty" }, "No conflicts: nothing lies beside another file."));
    return;
  }
  put(place, h("p", { class: "dim" }, "Both machines changed these files. Yours kept its name; the other lies beside it. Nothing is lost either way."),
    ...found.map((one, at) => conflict(one, version, at === 0)));
}
