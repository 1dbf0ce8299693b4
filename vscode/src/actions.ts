// What can be done with a version, a file, a conflict.

import * as path from "node:path";
import * as vscode from "vscode";
import type { VersionItem } from "./history";
import type { Merges } from "./merge";
import { timeText, versionTitle } from "./state";
import { PathText, Refusal, Workspace, mountAround, run } from "./workspace";

const CHOICES_MAX = 200;

const name = (of: PathText): string => (typeof of === "string" ? of : of.hex);
const uri = (file: string): vscode.Uri => vscode.Uri.file(file);
const pathAt = (item: VersionItem): string => (typeof item.step.change.path === "string" ? item.step.change.path : item.path);

/** A file of a workspace that a command is about: the one it was called on, or the one in the editor. */
export async function placeOf(given?: vscode.Uri): Promise<{ workspace: Workspace; path: string; file: string } | undefined> {
  const file = (given ?? vscode.window.activeTextEditor?.document.uri)?.fsPath;
  const mountpoint = file === undefined ? undefined : await mountAround(path.dirname(file));
  if (file === undefined || mountpoint === undefined) return undefined;
  const workspace = new Workspace(mountpoint);
  const at = workspace.pathOf(file);
  return at === undefined ? undefined : { workspace, path: at, file };
}

export async function open(item: VersionItem): Promise<void> {
  const file = item.workspace.pastFile(item.step.id, pathAt(item));
  await vscode.commands.executeCommand("vscode.open", uri(file), { preview: true });
}

async function compareFiles(before: string, after: string, title: string): Promise<void> {
  await vscode.commands.executeCommand("vscode.diff", uri(before), uri(after), title);
}

/** A version beside the file as it is. */
export async function compare(item: VersionItem): Promise<void> {
  const past = item.workspace.pastFile(item.step.id, pathAt(item));
  const base = path.basename(item.path);
  await compareFiles(past, item.workspace.fileOf(item.path), `${base} (${timeText(item.step.time)}) ↔ now`);
}

/** What a version changed in the file. */
export async function compareBefore(item: VersionItem): Promise<void> {
  const { change, parents, id, time } = item.step;
  const [parent] = parents;
  if (change.letter === "+" || parent === undefined) return open(item);
  const before = item.workspace.pastFile(parent, typeof change.from === "string" ? change.from : pathAt(item));
  if (change.letter === "-") {
    await vscode.commands.executeCommand("vscode.open", uri(before));
    return;
  }
  await compareFiles(before, item.workspace.pastFile(id, pathAt(item)), `${path.basename(item.path)}: ${timeText(time)}`);
}

/** A version that is chosen from a list beside the file as it is. */
export async function compareWith(given?: vscode.Uri): Promise<void> {
  const place = await placeOf(given);
  if (!place) return;
  const steps = await place.workspace.history(place.path, CHOICES_MAX);
  const choices = steps.filter((step) => step.change.letter !== "-").map((step) => ({
    label: versionTitle(step), description: timeText(step.time), detail: `${step.user}@${step.host}`, step,
  }));
  const chosen = await vscode.window.showQuickPick(choices, { placeHolder: `Compare ${place.path} with…`, matchOnDescription: true });
  if (chosen) await compare({ workspace: place.workspace, path: place.path, step: chosen.step });
}

/** Restores a file after saying what would change. */
export async function restore(item: VersionItem): Promise<void> {
  const paths = [pathAt(item)];
  const { changes } = (await item.workspace.restore(item.step.id, paths, true)).data;
  if (changes.length === 0) {
    void vscode.window.showInformationMessage("Nothing differs from that version.");
    return;
  }
  const detail = `${changes.map((change) => `${change.letter} ${name(change.path)}`).slice(0, 20).join("\n")}\n\nWhat is there now stays in the history.`;
  const question = `Restore ${path.basename(item.path)} as of ${timeText(item.step.time)}?`;
  if ((await vscode.window.showWarningMessage(question, { modal: true, detail }, "Restore")) !== "Restore") return;
  const done = await item.workspace.restore(item.step.id, paths, false);
  vscode.window.setStatusBarMessage(done.message, 6000);
}

export async function snapshot(workspace: Workspace): Promise<void> {
  const message = await vscode.window.showInputBox({ prompt: "What is this state? May be empty.", title: "Take a snapshot" });
  if (message === undefined) return;
  const done = await workspace.snapshot(message === "" ? null : message, null);
  vscode.window.setStatusBarMessage(done.message, 6000);
}

export async function setLock(isLocked: boolean, given?: vscode.Uri): Promise<void> {
  const place = await placeOf(given);
  if (!place) return;
  const done = await (isLocked ? place.workspace.lock([place.path]) : place.workspace.unlock([place.path]));
  vscode.window.setStatusBarMessage(done.message, 6000);
}

export async function resolve(workspace: Workspace, merges: Merges, given?: string): Promise<void> {
  const conflicts = await workspace.conflicts();
  const here = conflicts.filter((one) => name(one.path) === given || name(one.beside) === given);
  let [conflict] = here;
  if (here.length !== 1) {
    const choices = conflicts.map((one) => ({ label: name(one.path), description: name(one.beside), one }));
    if (choices.length === 0) {
      void vscode.window.showInformationMessage("No conflicts: nothing lies beside another file.");
      return;
    }
    conflict = (await vscode.window.showQuickPick(choices, { placeHolder: "Which conflict?" }))?.one;
  }
  if (!conflict) return;
  const takes = [
    { label: "Merge editor", description: "both sides in VS Code", take: undefined },
    { label: "Take ours", description: "the other file goes", take: "ours" as const },
    { label: "Take theirs", description: "it takes the name; ours goes", take: "theirs" as const },
    { label: "Keep both", description: "the other file gets a name of its own", take: "both" as const },
    { label: "Merge lines", description: "kura joins both texts", take: "merge" as const },
  ];
  const chosen = await vscode.window.showQuickPick(takes, { placeHolder: `${name(conflict.path)}: both states stay in the history` });
  if (!chosen) return;
  if (chosen.take === undefined) return merges.start(workspace, conflict);
  const done = await workspace.resolve(conflict.path, chosen.take);
  vscode.window.setStatusBarMessage(done.message, 6000);
}

const secretOf = (store: string): string => `kura.passphrase ${store}`;

/** Mounts a workspace; its passphrase is asked for once and kept in the keyring that VS Code uses. */
export async function mount(context: vscode.ExtensionContext): Promise<void> {
  const store = await vscode.window.showInputBox({
    title: "Mount a workspace", prompt: "Its store: a directory, or s3://BUCKET/PREFIX?region=…", value: context.globalState.get("kura.store", ""),
  });
  if (!store) return;
  const chosen = await vscode.window.showOpenDialog({ canSelectFolders: true, canSelectFiles: false, openLabel: "Mount Here" });
  const dir = chosen?.[0]?.fsPath;
  if (dir === undefined) return;
  const kept = await context.secrets.get(secretOf(store));
  const passphrase = kept ?? (await vscode.window.showInputBox({ title: `Passphrase of ${store}`, password: true, ignoreFocusOut: true }));
  if (!passphrase) return;
  const program = vscode.workspace.getConfiguration("kura").get("program", "kura");
  try {
    await vscode.window.withProgress({ location: vscode.ProgressLocation.Notification, title: `Mounting ${store}` }, () =>
      run(program, ["mount", "--", store, dir], passphrase));
  } catch (error) {
    if (error instanceof Refusal && error.code === "wrong-key") await context.secrets.delete(secretOf(store));
    throw error;
  }
  await context.secrets.store(secretOf(store), passphrase);
  await context.globalState.update("kura.store", store);
  if ((await vscode.window.showInformationMessage(`Mounted at ${dir}.`, "Open Folder")) === "Open Folder") {
    await vscode.commands.executeCommand("vscode.openFolder", uri(dir), { forceNewWindow: false });
  }
}

export async function forgetPassphrase(context: vscode.ExtensionContext): Promise<void> {
  const store = await vscode.window.showInputBox({ prompt: "The store whose passphrase is forgotten", value: context.globalState.get("kura.store", "") });
  if (store) await context.secrets.delete(secretOf(store));
}

export async function unmount(workspace: Workspace): Promise<void> {
  const program = vscode.workspace.getConfiguration("kura").get("program", "kura");
  await vscode.window.withProgress({ location: vscode.ProgressLocation.Notification, title: `Unmounting ${workspace.mountpoint}` }, () =>
    run(program, ["unmount", "--", workspace.mountpoint]));
}
