// The extension's own code against a real mount, with a VS Code of our own. KURA_PROGRAM names the program.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { promises as fs } from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { after, before, test } from "node:test";
import * as fake from "./fake";

type Uri = ReturnType<typeof fake.file>;
fake.install();
/* eslint-disable @typescript-eslint/no-require-imports -- what is loaded needs the fake to be there */
const engine = require("../src/workspace") as typeof import("../src/workspace");
const actions = require("../src/actions") as typeof import("../src/actions");
const extension = require("../src/extension") as typeof import("../src/extension");
const { reload } = require("../src/reload") as typeof import("../src/reload");
/* eslint-enable */

const program = process.env["KURA_PROGRAM"] ?? "kura";
const SOON_MS = 120_000;
let dir: string;
let work: string;

async function until<T>(what: string, holds: () => Promise<T | undefined | false>): Promise<T> {
  for (const start = Date.now(); Date.now() - start < SOON_MS;) {
    const found = await holds();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`never: ${what}`);
}

const kura = (...args: string[]): string => execFileSync(program, args, { encoding: "utf8" });
const isMounted = async (): Promise<boolean> => (await fs.readFile("/proc/self/mountinfo", "utf8")).includes(` ${work} `);

before(async () => {
  dir = await fs.realpath(await fs.mkdtemp(path.join(os.tmpdir(), "kura-vscode-")));
  work = path.join(dir, "work");
  await fs.mkdir(work);
  Object.assign(process.env, { HOME: dir, KURA_STATE_DIR: path.join(dir, "state"), KURA_CACHE_DIR: path.join(dir, "cache") });
  for (const name of ["KURA_PASSPHRASE", "KURA_STORE"]) delete process.env[name];
  execFileSync(program, ["init", "--kdf-memory-mib", "8", path.join(dir, "store")], { env: { ...process.env, KURA_PASSPHRASE: "kept secret" } });
  fake.settings.set("program", program);
});

after(async () => {
  fake.context.subscriptions.forEach((one) => one.dispose());
  if (await isMounted()) {
    try {
      kura("unmount", "--force", work);
    } catch {
      execFileSync("umount", ["-l", work]);
    }
  }
  await fs.rm(dir, { recursive: true, force: true });
});

test("a workspace is mounted, looked at, restored, merged and unmounted", async () => {
  const run = (id: string, ...args: unknown[]): unknown => fake.commands.get(id)?.(...args);
  await extension.activate(fake.context as never);

  // A wrong passphrase is not kept; the right one is, and reaches the program by no argument.
  fake.answers.input.push(path.join(dir, "store"), "wrong");
  fake.answers.dialog.push(work);
  await run("kura.mount");
  assert.equal(fake.secrets.size, 0);
  assert.ok(fake.said.at(-1)?.includes("passphrase"), fake.said.at(-1));
  fake.answers.input.push(path.join(dir, "store"), "kept secret");
  fake.answers.dialog.push(work);
  await run("kura.mount");
  assert.ok(await isMounted(), fake.said.at(-1));
  assert.equal([...fake.secrets.values()][0], "kept secret");

  const notes = path.join(work, "inner", "notes.txt");
  await fs.mkdir(path.dirname(notes));
  assert.equal(await engine.mountAround(path.dirname(notes)), work);
  assert.equal(await engine.mountAround(dir), undefined);
  const workspace = new engine.Workspace(work);

  await fs.writeFile(notes, "one\ntwo\n");
  fake.editor.active = fake.shown(notes);
  fake.answers.input.push("the first");
  await run("kura.refresh");
  await run("kura.snapshot");
  assert.match(fake.said.at(-1) ?? "", /recorded version/);
  await fs.writeFile(notes, "one\nchanged\n");
  fake.answers.input.push("the second");
  await run("kura.snapshot");

  // The status bar follows.
  await until("published", async () => {
    await run("kura.refresh");
    return fake.bars.some((bar) => bar.shown && bar.text.includes("kura: published"));
  });
  assert.ok(fake.bars.some((bar) => bar.shown && bar.text === "$(check) published"));

  // History, comparing with an earlier version, and what a version changed.
  const steps = await workspace.history("inner/notes.txt", 10);
  assert.deepEqual(steps.map((step) => step.message), ["the second", "the first"]);
  const [second, first] = steps.map((step) => ({ workspace, path: "inner/notes.txt", step }));
  await run("kura.compare", first);
  const diff = fake.executed.at(-1);
  assert.equal(diff?.command, "vscode.diff");
  const [past, now] = (diff?.args ?? []) as { fsPath: string }[];
  assert.equal(await fs.readFile(past!.fsPath, "utf8"), "one\ntwo\n");
  assert.equal(await fs.readFile(now!.fsPath, "utf8"), "one\nchanged\n");
  await run("kura.compareBefore", second);
  const [before_] = (fake.executed.at(-1)?.args ?? []) as { fsPath: string }[];
  assert.equal(await fs.readFile(before_!.fsPath, "utf8"), "one\ntwo\n");
  fake.answers.pick.push((items) => items.find((item) => item.label === "the first"));
  await run("kura.compareWith", fake.file(notes));
  assert.equal((fake.executed.at(-1)?.args[0] as { fsPath: string }).fsPath, past!.fsPath);

  // Restoring asks first; no is no.
  fake.answers.message.push(undefined);
  await run("kura.restore", first);
  assert.equal(await fs.readFile(notes, "utf8"), "one\nchanged\n");
  assert.ok(fake.said.at(-1)?.includes("M inner/notes.txt"), fake.said.at(-1));
  fake.answers.message.push("Restore");
  await run("kura.restore", first);
  assert.equal(await fs.readFile(notes, "utf8"), "one\ntwo\n");

  // What was restored is loaded into the editor, unless it shows just that or holds something unsaved.
  const isLoaded = async (text: string, isDirty: boolean): Promise<boolean> => {
    fake.editor.active = fake.shown(notes, text, isDirty);
    const before = fake.executed.length;
    await reload(workspace);
    return fake.executed.slice(before).some((one) => one.command === "workbench.action.files.revert");
  };
  assert.ok(await isLoaded("one\nchanged\n", false));
  assert.ok(!(await isLoaded("one\nchanged\n", true)));
  assert.ok(!(await isLoaded("one\r\ntwo\r\n", false)));

  // A lock of our own, and given up.
  await run("kura.lock", fake.file(notes));
  assert.deepEqual((await workspace.status()).locks.map(({ path: locked, ours }) => [locked, ours]), [["inner/notes.txt", true]]);
  await run("kura.refresh");
  assert.ok(fake.bars.some((bar) => bar.text === "$(lock) locked"));
  await run("kura.unlock", fake.file(notes));
  assert.deepEqual((await workspace.status()).locks, []);

  // A conflict in the merge editor: it gets both texts, and what it saves is the file.
  const beside = path.join(work, "inner", "conflict-20261121.101500.notes.txt");
  const merges = fake.providers.get("kura-merge")!;
  const merging = async (): Promise<{ result: Uri; read: (at: Uri) => string }> => {
    fake.answers.pick.push((items) => items.find((item) => item.label === "Merge editor"));
    await run("kura.resolve");
    const opened = [...fake.executed].reverse().find((one) => one.command === "_open.mergeEditor");
    const shape = opened?.args[0] as { base: Uri; output: Uri; input1: { uri: Uri }; input2: { uri: Uri } };
    const read = (at: Uri): string => Buffer.from(merges.readFile(at)).toString();
    assert.deepEqual([shape.base, shape.input1.uri, shape.input2.uri].map(read), ["", "theirs\n", "one\ntwo\n"]);
    return { result: shape.output, read };
  };
  await fs.writeFile(beside, "theirs\n");
  let { result, read } = await merging();
  assert.equal(read(result), "<<<<<<< ours\none\ntwo\n=======\ntheirs\n>>>>>>> theirs\n");
  assert.throws(() => merges.writeFile(result, merges.readFile(result)), /markers are left/);
  const close = async (done: () => Promise<boolean>): Promise<void> => {
    fake.closed.forEach((told) => told({ uri: result }));
    await until("closed", done);
  };
  const isGone = async (): Promise<boolean> => {
    try {
      merges.readFile(result);
      return await Promise.resolve(false);
    } catch {
      return true;
    }
  };
  // What is saved is not written yet; closing asks, and no is no.
  merges.writeFile(result, Buffer.from("half\n"));
  fake.answers.message.push(undefined);
  await close(isGone);
  assert.equal(await fs.readFile(notes, "utf8"), "one\ntwo\n");
  await fs.access(beside);
  // What others wrote meanwhile stays, too.
  ({ result, read } = await merging());
  fake.replies.set("mergeEditor.acceptMerge", () => {
    merges.writeFile(result, Buffer.from("merged\n"));
    return { successful: true };
  });
  await fs.writeFile(notes, "newer\n");
  await run("kura.completeMerge", result);
  assert.match(fake.said.at(-1) ?? "", /inner\/notes.txt was changed since/);
  assert.equal(await fs.readFile(notes, "utf8"), "newer\n");
  await fs.writeFile(notes, "one\ntwo\n");
  await run("kura.completeMerge", result);
  assert.equal(await fs.readFile(notes, "utf8"), "merged\n");
  await assert.rejects(fs.access(beside));
  // Closing can complete, too.
  await fs.writeFile(notes, "one\ntwo\n");
  await fs.writeFile(beside, "theirs\n");
  ({ result, read } = await merging());
  merges.writeFile(result, Buffer.from("closed\n"));
  fake.answers.message.push("Complete");
  await close(() => fs.access(beside).then(() => false, () => true));
  assert.equal(await fs.readFile(notes, "utf8"), "closed\n");

  // What is refused is said.
  await run("kura.restore", { workspace, path: "x", step: { ...first!.step, id: "00000000-0000-0000-0000-000000000000" } });
  assert.match(fake.said.at(-1) ?? "", /^kura: /);

  await run("kura.unmount");
  assert.ok(!(await isMounted()));
  assert.ok(actions);
});
