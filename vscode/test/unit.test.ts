import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { after, before, test } from "node:test";
import * as fake from "./fake";

fake.install();
/* eslint-disable @typescript-eslint/no-require-imports -- what is loaded needs the fake to be there */
const state = require("../src/state") as typeof import("../src/state");
const engine = require("../src/workspace") as typeof import("../src/workspace");
const history = require("../src/history") as typeof import("../src/history");
const actions = require("../src/actions") as typeof import("../src/actions");
const extension = require("../src/extension") as typeof import("../src/extension");
/* eslint-enable */

let dir: string;
before(async () => { dir = await fs.mkdtemp(path.join(os.tmpdir(), "kura-vscode-")); });
after(async () => fs.rm(dir, { recursive: true, force: true }));

const fine = {
  newest_version: "v", unrecorded_changes: false, unpublished_versions: 0, unpublished_bytes: 0, drafts: 0, offline: null,
  blocked: null, unrecorded: null, read_only: null, conflicts: 0, locks: [], store: "/store", publishing_s: null,
};
const trouble = { since: "2026-11-22T10:00:00Z", reason: "no route" };

test("the status bar says the worst first", () => {
  assert.match(state.workspaceState(fine).text, /published/);
  assert.match(state.workspaceState({ ...fine, unrecorded_changes: true }).text, /changed/);
  assert.match(state.workspaceState({ ...fine, unpublished_versions: 2 }).text, /publishing 2 versions/);
  const offline = state.workspaceState({ ...fine, unpublished_versions: 1, offline: trouble });
  assert.match(offline.text, /offline, 1 version wait/);
  assert.ok(offline.isTrouble && offline.tooltip.includes("no route"));
  assert.match(state.workspaceState({ ...fine, offline: trouble, blocked: trouble }).text, /stopped/);
  assert.ok(state.workspaceState({ ...fine, conflicts: 1 }).isTrouble);
});

test("a file is in conflict, locked, waiting or published", () => {
  const beside = [{ path: "a/b.txt", beside: "a/conflict-20261121.101500.b.txt" }];
  assert.match(state.fileState(fine, "a/b.txt", beside).text, /conflict/);
  assert.match(state.fileState(fine, "a/conflict-20261121.101500.b.txt", beside).text, /conflict/);
  const locks = [{ path: "a", holder: "eve@far", ours: false }];
  assert.match(state.fileState({ ...fine, locks }, "a/c.txt", beside).text, /eve@far/);
  assert.match(state.fileState({ ...fine, locks }, "ab.txt", []).text, /published/);
  assert.match(state.fileState({ ...fine, locks: [{ path: ".", holder: "me", ours: true }] }, "x", []).text, /locked/);
  const waiting_files = [{ path: "x", bytes: 1, state: "draft" }];
  assert.match(state.fileState({ ...fine, waiting_files }, "x", []).text, /draft/);
});

test("paths are from the root, and nothing outside or in .kura has one", () => {
  const workspace = new engine.Workspace("/mnt/work");
  assert.equal(workspace.pathOf("/mnt/work/a/b.txt"), "a/b.txt");
  for (const other of ["/mnt/work", "/mnt/other/a", "/mnt/workbench/a", "/mnt/work/.kura/status", "/mnt/work/a/.kura/x"]) {
    assert.equal(workspace.pathOf(other), undefined, other);
  }
  assert.equal(workspace.historyOf("/mnt/work/a/b.txt"), "a/b.txt");
  assert.equal(workspace.historyOf(workspace.pastFile("01a2-3", "a/b.txt")), "a/b.txt");
  for (const other of ["/mnt/other/a", "/mnt/work/.kura/status", "/mnt/work/.kura/versions/by-id/01a2-3"]) {
    assert.equal(workspace.historyOf(other), undefined, other);
  }
});

test("a conflict that an earlier mount saw is found beside the file", async () => {
  const workspace = new engine.Workspace(dir);
  for (const name of ["plan.md", "other.md", "conflict-20261121.101500.plan.md"]) await fs.writeFile(path.join(dir, name), "");
  assert.ok(await workspace.hasBeside("plan.md"));
  assert.ok(await workspace.hasBeside("conflict-20261121.101500.plan.md"));
  assert.ok(!(await workspace.hasBeside("other.md")));
  assert.ok(!(await workspace.hasBeside("gone/plan.md")));
});

test("events are told once, also when the oldest leave the log", async () => {
  await fs.mkdir(path.join(dir, ".kura"), { recursive: true });
  const write = (numbers: number[]): Promise<void> =>
    fs.writeFile(path.join(dir, ".kura/events"), numbers.map((n) => `${JSON.stringify({ time: `t${n}`, event: "pulled", message: `m${n}` })}\n`).join(""));
  const events = new engine.Events(new engine.Workspace(dir));
  const told = async (): Promise<string[]> => (await events.next()).map((event) => event.message);
  await write([1, 2]);
  assert.deepEqual(await told(), []);
  assert.deepEqual(await told(), []);
  await write([2, 3, 4]);
  assert.deepEqual(await told(), ["m3", "m4"]);
  await write([9]);
  assert.deepEqual(await told(), ["m9"], "a new mount begins a new log");
});

test("the passphrase reaches the program by its standard input alone", async () => {
  const program = path.join(dir, "kura-fake");
  await fs.writeFile(program, `#!/bin/sh\necho "$@" > ${dir}/argv\nenv > ${dir}/env\n$KURA_PASSPHRASE_COMMAND > ${dir}/secret\n`, { mode: 0o755 });
  await engine.run(program, ["mount", "--", "store", "dir"], "s3cret words");
  assert.equal((await fs.readFile(`${dir}/secret`, "utf8")).trim(), "s3cret words");
  assert.equal((await fs.readFile(`${dir}/argv`, "utf8")).trim(), "mount -- store dir");
  assert.ok(!(await fs.readFile(`${dir}/env`, "utf8")).includes("s3cret"));
  await fs.writeFile(program, "#!/bin/sh\necho 'kura: wrong passphrase' >&2\nexit 12\n", { mode: 0o755 });
  await assert.rejects(engine.run(program, [], "x"), (error: InstanceType<typeof engine.Refusal>) =>
    error.code === "wrong-key" && error.message === "wrong passphrase");
  await assert.rejects(engine.run(path.join(dir, "none"), []), /cannot be run/);
});

test("a passphrase that opens is kept, and one that does not is forgotten", async () => {
  const program = path.join(dir, "kura-mount");
  fake.settings.set("program", program);
  const mount = async (exit: number, input: string[]): Promise<void> => {
    await fs.writeFile(program, `#!/bin/sh\ncat > /dev/null\nexit ${exit}\n`, { mode: 0o755 });
    fake.answers.input.push("/store", ...input);
    fake.answers.dialog.push(dir);
    await actions.mount(fake.context as never);
  };
  await mount(0, ["right"]);
  assert.equal(fake.secrets.get("kura.passphrase /store"), "right");
  await mount(0, []);
  await assert.rejects(mount(12, []));
  assert.equal(fake.secrets.size, 0);
  assert.ok(!fake.said.some((text) => text.includes("right")));
});

test("every command of the manifest is there, and no other", async () => {
  await extension.activate(fake.context as never);
  const manifest = JSON.parse(await fs.readFile(path.join(__dirname, "../../package.json"), "utf8")) as
    { contributes: { commands: { command: string }[] } };
  assert.deepEqual([...fake.commands.keys()].sort(), manifest.contributes.commands.map((one) => one.command).sort());
  await fake.commands.get("kura.snapshot")?.();
  assert.ok(fake.said.at(-1)?.includes("Neither the open file"), "elsewhere it says why nothing happens");
  fake.context.subscriptions.forEach((one) => one.dispose());
});

test("the history of a file is a tree that goes on", async () => {
  const step = (id: string, letter = "M"): object => ({
    id, time: "2026-11-22T10:00:00Z", parents: [], names: [], message: null, origin: "automatic", host: "h", user: "u", generation: 1,
    counts: {}, change: { letter, path: "a", from: null, size: 1 },
  });
  const asked: (string | undefined)[] = [];
  const workspace = {
    mountpoint: "/m",
    history: (_path: string, max: number, from?: string) => {
      asked.push(from);
      return Promise.resolve(Array.from({ length: from ? 2 : max }, (_, at) => step(`${from ?? ""}${at}`)));
    },
  };
  const shown = new history.History();
  shown.look({ workspace: workspace as never, path: "a" });
  const first = await shown.getChildren();
  assert.equal(first.length, 51);
  assert.equal(shown.getTreeItem(first[50]!).label, "Older versions…");
  await shown.more();
  const all = await shown.getChildren();
  assert.equal(all.length, 52);
  assert.deepEqual(asked, [undefined, "50"]);
});
