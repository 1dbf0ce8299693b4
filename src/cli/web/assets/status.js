// What is going on: what waits to be published, since when the store is away, jobs, locks, the cache.

import { ask, doing, reply } from "./api.js";
import { choose, count, h, moment, put, size, toast } from "./dom.js";

const CONFLICTS_EVERY_MS = 15_000;
let beside = { version: null, at: -Infinity, count: 0 };

// So many files lie beside another one in a version.
export function knowConflicts(version, count) {
  beside = { version, at: Date.now(), count };
}

// The state with what lies beside other files now; a mount counts the conflicts that it saw itself, settled or not.
export async function withConflicts(now) {
  if (now.newest_version !== beside.version && Date.now() - beside.at > CONFLICTS_EVERY_MS) {
    try {
      knowConflicts(now.newest_version, (await ask("conflicts")).length);
    } catch (error) {
      if (error.isClosed) throw error;
      // When the store is away, what was known stays; it is asked again later.
      beside.at = Date.now();
    }
  }
  return { ...now, conflicts: beside.count };
}

export function stateOf(now) {
  if (now.blocked) return ["bad", "publishing stopped"];
  if (now.read_only) return ["warn", "read-only"];
  if (now.unrecorded) return ["bad", "not recorded"];
  if (now.offline) return ["warn", `offline, ${count(now.unpublished_versions, "version")} wait`];
  if (now.unpublished_versions > 0) return ["warn", `publishing ${count(now.unpublished_versions, "version")}`];
  if (now.unrecorded_changes) return ["work", "changed"];
  return ["good", "published"];
}

const seconds = (of) => (of < 90 ? `${of} s` : of < 5400 ? `${Math.round(of / 60)} min` : `${Math.round(of / 3600)} h`);
const fetching = (of) => `${size(of.bytes)} of ${size(of.bytes_total)}${of.is_done ? ", done" : ""}${of.failure ? `: ${of.failure}` : ""}`;

function facts(now) {
  const trouble = (of) => of && h("span", { class: "del" }, `since ${moment(of.since)}: ${of.reason}`);
  return [
    ["Store", now.store],
    ["Newest version", h("a", { href: `#/version/${now.newest_version}` }, moment(now.newest_version_time))],
    ["Holds", `${count(now.files, "file")}, ${count(now.dirs, "directory", "directories")}, ${size(now.bytes)}`],
    ["Not recorded yet", now.unrecorded_changes ? "changes, in the next version" : "nothing"],
    ["Not published yet", now.unpublished_versions === 0 ? "nothing"
      : `${count(now.unpublished_versions, "version")}, ${size(now.unpublished_bytes)}${now.publishing_s !== null ? `, about ${seconds(now.publishing_s)}` : ""}`],
    ["Open or unsaved", now.drafts === 0 ? "nothing" : `${count(now.drafts, "file")}${now.recovered > 0 ? `, ${now.recovered} recovered` : ""}`],
    ["Offline", trouble(now.offline) ?? "no"],
    now.blocked && ["Stopped", trouble(now.blocked)],
    now.unrecorded && ["Not recordable", trouble(now.unrecorded)],
    now.read_only && ["Read-only", now.read_only],
    ["Conflicts", now.conflicts === 0 ? "none" : h("a", { href: "#/conflicts" }, String(now.conflicts))],
    ["Cache", size(now.cache_bytes)],
    ["Journal", size(now.journal_bytes)],
    now.pinned > 0 && ["Kept here", count(now.pinned, "path")],
    now.fetching && ["Fetching", fetching(now.fetching)],
    now.reencryption && ["Re-encryption", now.reencryption],
    now.collected && ["Collected", now.collected],
    now.scrubbed && ["Read for damage", now.scrubbed],
    now.writer && ["Writer", now.writer],
    ["Open since", moment(now.mounted_since)],
  ].filter((one) => one);
}

function lockRow({ path, holder, ours }) {
  const give = async () => {
    const text = ours ? "Give this lock up?" : `Take the lock away from ${holder}?`;
    const what = ours ? "Others may change it again." : "What they change from now on is put beside yours.";
    if (!(await choose(text, h("p", {}, what), [["yes", ours ? "Unlock" : "Take it"]]))) return;
    const done = await doing(() => (ours ? reply("unlock", { paths: [path] }) : reply("lock", { paths: [path], break: true })));
    if (done) toast(done.message);
  };
  return h("li", { class: "row" }, h("span", { class: "path" }, path), h("span", { class: "who" }, ours ? `${holder} (this machine)` : holder),
    h("button", { class: "link", onclick: give }, ours ? "unlock" : "take…"));
}

function jobRow(job) {
  const { done, total, what } = job.progress ?? {};
  const isOpen = job.state === "running" || job.state === "queued";
  const stop = () => doing(async () => toast((await reply("cancel", { job: job.job ?? job.id })).message));
  return h("li", { class: "row" }, h("span", { class: `tag ${job.state}` }, job.state), h("span", { class: "path" }, job.op),
    isOpen && total > 0 && h("progress", { value: done, max: total }),
    h("span", { class: "dim" }, what ?? ""), isOpen && h("button", { class: "link", onclick: stop }, "end it"));
}

export async function status(place) {
  const list = h("dl", { class: "facts" });
  const locks = h("ul", { class: "list" });
  const jobs = h("ul", { class: "list" });
  const none = (text) => h("li", { class: "dim" }, text);
  // Rows are only replaced when they say something else, so that the focus stays.
  const renew = (into, key, rows) => {
    const text = JSON.stringify(key);
    if (into.dataset.key === text) return;
    into.dataset.key = text;
    into.replaceChildren(...rows());
  };
  const draw = async (now) => {
    const shown = facts(now);
    renew(list, shown.map(([, value]) => value?.textContent ?? value), () => shown.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]));
    renew(locks, now.locks, () => (now.locks.length === 0 ? [none("Nothing is locked.")] : now.locks.map(lockRow)));
    const known = await ask("jobs");
    renew(jobs, known, () => (known.length === 0 ? [none("No jobs.")] : known.slice(0, 50).map(jobRow)));
  };
  await draw(await withConflicts(await ask("status")));
  const act = (op, args) => () => doing(async () => toast((await reply(op, args)).message));
  put(place,
    h("div", { class: "toolbar" }, h("h2", {}, "Now"),
      h("button", { onclick: act("sync", {}) }, "Look for others’ changes"),
      h("button", { onclick: act("flush", { wait_ms: 0 }) }, "Publish now")),
    list, h("h3", {}, "Locks"), locks, h("h3", {}, "Jobs"), jobs);
  const onStatus = ({ detail }) => draw(detail).catch(() => {});
  window.addEventListener("kura-status", onStatus);
  return () => window.removeEventListener("kura-status", onStatus);
}
