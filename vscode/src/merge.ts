// Conflicts in the merge editor of VS Code.
//
// It takes a result that has no conflict markers for decided, so it is given documents of ours, in memory; the result
// begins with both texts in markers. Saving it (which may happen after a delay, half done) keeps it there: the file is
// written once, when the merge is completed.

import { promises as fs } from "node:fs";
import * as path from "node:path";
import * as vscode from "vscode";
import type { Conflict, Workspace } from "./workspace";

export const SCHEME = "kura-merge";
const MARK = "<<<<<<<";

type Role = "base" | "ours" | "theirs" | "result";

interface Merge {
  workspace: Workspace;
  path: string;
  beside: string;
  /** The texts that the editor shows. */
  texts: Record<Role, Buffer>;
  isSaved: boolean;
  isCompleting: boolean;
  time: number;
}

const marks = (text: Buffer): number => text.toString().split("\n").filter((line) => line.startsWith(MARK)).length;

/** Both texts as one conflict. */
function unmerged(ours: Buffer, theirs: Buffer): Buffer {
  const whole = (text: Buffer): string => text.toString().replace(/[^\n]$/, "$&\n");
  return Buffer.from(`${MARK} ours\n${whole(ours)}=======\n${whole(theirs)}>>>>>>> theirs\n`);
}

/** The merges that are open in editors. */
export class Merges implements vscode.FileSystemProvider {
  // What is shown changes by the editor alone.
  readonly onDidChangeFile = new vscode.EventEmitter<vscode.FileChangeEvent[]>().event;
  private readonly open = new Map<string, Merge>();
  private opened = 0;

  /** Shows what both sides came from, and both sides; a result is made of them. */
  async start(workspace: Workspace, conflict: Conflict): Promise<void> {
    if (typeof conflict.path !== "string" || typeof conflict.beside !== "string") {
      throw new Error("VS Code cannot open files whose names are no text; take one side, or keep both");
    }
    const [ours, theirs] = await Promise.all([conflict.path, conflict.beside].map((at) => fs.readFile(workspace.fileOf(at))));
    if (!ours || !theirs || ours.includes(0) || theirs.includes(0)) throw new Error(`${conflict.path} is no text; take one side, or keep both`);
    const past = await workspace.baseOf(conflict);
    // Without it every line is in conflict.
    const base = past === undefined ? Buffer.alloc(0) : await fs.readFile(past);
    const key = String(++this.opened);
    const texts = { base, ours, theirs, result: unmerged(ours, theirs) };
    this.open.set(key, { workspace, path: conflict.path, beside: conflict.beside, texts, isSaved: false, isCompleting: false, time: Date.now() });
    const at = conflict.path;
    const uri = (role: Role): vscode.Uri => vscode.Uri.from({ scheme: SCHEME, path: `/${at}`, query: `${key}/${role}` });
    await vscode.commands.executeCommand("_open.mergeEditor", {
      base: uri("base"), output: uri("result"),
      input1: { uri: uri("theirs"), title: "Theirs", description: path.basename(conflict.beside) },
      input2: { uri: uri("ours"), title: "Ours", description: path.basename(at) },
    });
  }

  /** Saves and closes (VS Code asks first when conflicts are left), and resolves the conflict. */
  async complete(uri?: vscode.Uri): Promise<void> {
    const found = this.find(uri ?? vscode.window.activeTextEditor?.document.uri) ?? this.only();
    if (!found) throw new Error("click into the result of the merge that is complete, and try again");
    const { merge } = found;
    await this.unchanged(merge);
    merge.isCompleting = true;
    try {
      const done = await vscode.commands.executeCommand<{ successful: boolean } | undefined>("mergeEditor.acceptMerge");
      if (done?.successful) await this.settle(found.key);
    } finally {
      merge.isCompleting = false;
    }
  }

  /** An editor was closed without completing. */
  async closed(uri: vscode.Uri): Promise<void> {
    const found = this.find(uri);
    if (found?.role !== "result" || found.merge.isCompleting) return;
    const { key, merge } = found;
    const detail = "Then it is written and the other file goes. Otherwise both stay as they are, and what you merged is dropped.";
    const question = `Is the merge of ${path.basename(merge.path)} complete?`;
    if (merge.isSaved && (await vscode.window.showWarningMessage(question, { modal: true, detail }, "Complete")) === "Complete") await this.settle(key);
    this.open.delete(key);
  }

  /** Sees that nobody wrote the files since the merge was begun. */
  private async unchanged({ workspace, path: at, beside, texts }: Merge): Promise<void> {
    for (const [name, text] of [[at, texts.ours], [beside, texts.theirs]] as const) {
      if (!(await fs.readFile(workspace.fileOf(name))).equals(text)) {
        throw new Error(`${name} was changed since this merge was begun; keep what you need of it, close it and begin anew`);
      }
    }
  }

  private async settle(key: string): Promise<void> {
    const merge = this.open.get(key);
    if (!merge?.isSaved) return;
    await this.unchanged(merge);
    const { workspace, path: at, texts } = merge;
    await fs.writeFile(workspace.fileOf(at), texts.result);
    this.open.delete(key);
    const done = await workspace.resolve(at, "ours");
    vscode.window.setStatusBarMessage(done.message, 6000);
  }

  private find(uri?: vscode.Uri): { key: string; role: Role; merge: Merge } | undefined {
    const [key, role] = uri?.scheme === SCHEME ? uri.query.split("/") : [];
    const merge = key === undefined ? undefined : this.open.get(key);
    return key !== undefined && merge ? { key, role: role as Role, merge } : undefined;
  }

  private only(): { key: string; merge: Merge } | undefined {
    const [first, ...others] = [...this.open].map(([key, merge]) => ({ key, merge }));
    return others.length === 0 ? first : undefined;
  }

  private expect(uri: vscode.Uri): { role: Role; merge: Merge } {
    const found = this.find(uri);
    if (!found) throw vscode.FileSystemError.FileNotFound(uri);
    return found;
  }

  stat(uri: vscode.Uri): vscode.FileStat {
    const { role, merge } = this.expect(uri);
    const kind = { type: vscode.FileType.File, ctime: 0, mtime: merge.time, size: merge.texts[role].length };
    return role === "result" ? kind : { ...kind, permissions: vscode.FilePermission.Readonly };
  }

  readFile(uri: vscode.Uri): Uint8Array {
    const { role, merge } = this.expect(uri);
    return merge.texts[role];
  }

  writeFile(uri: vscode.Uri, given: Uint8Array): void {
    const { merge } = this.expect(uri);
    const content = Buffer.from(given);
    if (marks(content) > marks(merge.texts.ours) + marks(merge.texts.theirs)) throw new Error("conflict markers are left");
    merge.texts.result = content;
    merge.time = Math.max(Date.now(), merge.time + 1);
    merge.isSaved = true;
  }

  watch(): vscode.Disposable {
    return new vscode.Disposable(() => {});
  }

  readDirectory(): never {
    throw vscode.FileSystemError.Unavailable("merges have no directory");
  }

  createDirectory(): never {
    throw vscode.FileSystemError.NoPermissions("merges have no directory");
  }

  delete(): never {
    throw vscode.FileSystemError.NoPermissions("close the editor instead");
  }

  rename(): never {
    throw vscode.FileSystemError.NoPermissions("a merge has no other name");
  }
}
