// A mounted workspace, as its `.kura` shows it. Knows nothing of VS Code, so that tests can drive it against a real mount.

import { spawn } from "node:child_process";
import { promises as fs } from "node:fs";
import * as path from "node:path";

/** A path in JSON: a text, or its bytes in hexadecimal where it is no text. */
export type PathText = string | { hex: string };

export interface Counts { files: number; dirs: number; bytes: number; added: number; changed: number; removed: number }

export interface Version {
  id: string; time: string; parents: string[]; names: string[]; message: string | null; origin: string;
  host: string; user: string; generation: number; counts: Counts;
}

/** A version of the history of one path. */
export interface Step extends Version {
  change: { letter: string; path: PathText; from: PathText | null; size: number | null };
}

export interface Conflict { path: PathText; beside: PathText }
export interface Lock { path: string; holder: string; ours: boolean }
export interface Trouble { since: string; reason: string }

export interface Status {
  newest_version: string; unrecorded_changes: boolean; unpublished_versions: number; unpublished_bytes: number;
  drafts: number; offline: Trouble | null; blocked: Trouble | null; unrecorded: Trouble | null; read_only: string | null;
  conflicts: number; locks: Lock[]; store: string; publishing_s: number | null;
  waiting_files?: { path: PathText; bytes: number; state: string }[];
}

export interface Reply<T> { ok: boolean; code: string; exit: number; message: string; hint?: string; data: T }

/** What a workspace answered that could not be done. */
export class Refusal extends Error {
  constructor(readonly code: string, message: string, hint?: string) {
    super(hint ? `${message} (${hint})` : message);
  }
}

const REPLY_LEN_MAX = 256 * 1024 * 1024;
const READ_LEN = 1024 * 1024;

/** The mountpoint that holds a file; undefined for files elsewhere. */
export async function mountAround(file: string): Promise<string | undefined> {
  const parsed = path.parse(path.resolve(file));
  let found: string | undefined;
  // Every directory of a mount has a `.kura`; the topmost of them is the mountpoint.
  for (let dir = path.resolve(file); ; dir = path.dirname(dir)) {
    try {
      await fs.access(path.join(dir, ".kura", "ctl", "run"));
      found = dir;
    } catch {
      if (found) return found;
    }
    if (dir === parsed.root) return found;
  }
}

export class Workspace {
  constructor(readonly mountpoint: string) {}

  /** Runs a request of the command table. */
  async ask<T>(op: string, args: Record<string, unknown> = {}): Promise<Reply<T>> {
    const file = await fs.open(path.join(this.mountpoint, ".kura", "ctl", "run"), "r+");
    try {
      const request = Buffer.from(JSON.stringify({ op, ...args }));
      await file.write(request, 0, request.length, null);
      const parts: Buffer[] = [];
      let length = 0;
      for (;;) {
        const part = Buffer.allocUnsafe(READ_LEN);
        const { bytesRead } = await file.read(part, 0, READ_LEN, null);
        if (bytesRead === 0) break;
        length += bytesRead;
        if (length > REPLY_LEN_MAX) throw new Error("the workspace answers more than can be read");
        parts.push(part.subarray(0, bytesRead));
      }
      const reply = JSON.parse(Buffer.concat(parts).toString("utf8")) as Reply<T>;
      if (!reply.ok && reply.code !== "partial") throw new Refusal(reply.code, reply.message, reply.hint);
      return reply;
    } finally {
      await file.close();
    }
  }

  private async data<T>(op: string, args: Record<string, unknown> = {}): Promise<T> {
    return (await this.ask<T>(op, args)).data;
  }

  status(files = false): Promise<Status> {
    return this.data("status", files ? { files } : {});
  }

  log(max: number, from?: string): Promise<Version[]> {
    return this.data("log", { max, ...(from ? { from } : {}) });
  }

  async show(version: string): Promise<Version> {
    return (await this.data<{ version: Version }>("show", { version })).version;
  }

  history(file: PathText, max: number, from?: string): Promise<Step[]> {
    return this.data("log", { path: file, max, ...(from ? { from } : {}) });
  }

  snapshot(message: string | null, name: string | null): Promise<Reply<Version>> {
    return this.ask("snapshot", { message, name });
  }

  /** What a restore would change, or (without `trial`) does. */
  restore(version: string, paths: PathText[], trial: boolean): Promise<Reply<{ changes: { letter: string; path: PathText }[] }>> {
    return this.ask("restore", { version, paths, dry_run: trial });
  }

  conflicts(): Promise<Conflict[]> {
    return this.data("conflicts");
  }

  /** Whether a file of a conflict seems to lie beside a file, or is it. */
  async hasBeside(at: string): Promise<boolean> {
    const name = path.basename(at);
    const names = await fs.readdir(path.dirname(this.fileOf(at))).catch(() => []);
    return names.some((other) => other.startsWith("conflict-") && (other === name || other.endsWith(`.${name}`)));
  }

  resolve(file: PathText, take: "ours" | "theirs" | "both" | "merge"): Promise<Reply<Conflict[]>> {
    return this.ask("resolve", { path: file, take });
  }

  lock(paths: PathText[]): Promise<Reply<unknown>> {
    return this.ask("lock", { paths });
  }

  unlock(paths: PathText[]): Promise<Reply<unknown>> {
    return this.ask("unlock", { paths });
  }

  /** The path of a file from the root of the workspace; undefined for files elsewhere and below `.kura`. */
  pathOf(file: string): string | undefined {
    const below = path.relative(this.mountpoint, file);
    const names = below.split(path.sep);
    return below === "" || path.isAbsolute(below) || names[0] === ".." || names.includes(".kura") ? undefined : names.join("/");
  }

  /** The path whose history tells of a file: its own, or the one that it is a past state of. */
  historyOf(file: string): string | undefined {
    const past = path.relative(path.join(this.mountpoint, ".kura", "versions", "by-id"), file).split(path.sep);
    return past[0] === ".." || past.length < 2 ? this.pathOf(file) : past.slice(1).join("/");
  }

  fileOf(at: string): string {
    return path.join(this.mountpoint, at);
  }

  /** Where a past state of a file can be read, as an ordinary file. */
  pastFile(version: string, at: string): string {
    return path.join(this.mountpoint, ".kura", "versions", "by-id", version, at);
  }

  /** The state that both sides of a conflict came from: what the versions had in common before they were joined. */
  async baseOf(conflict: Conflict): Promise<string | undefined> {
    if (typeof conflict.path !== "string") return undefined;
    const came = (await this.history(conflict.beside, 1000)).at(-1);
    const [ours, theirs] = came?.parents ?? [];
    if (!came || !ours || !theirs) return undefined;
    const known = new Map((await this.log(10_000, came.id)).map((version) => [version.id, version]));
    const ancestors = (of: string): Set<string> => {
      const found = new Set<string>();
      const waiting = [of];
      for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
        if (found.has(id)) continue;
        found.add(id);
        waiting.push(...(known.get(id)?.parents ?? []));
      }
      return found;
    };
    const of = ancestors(theirs);
    const common = [...ancestors(ours)].filter((id) => of.has(id) && known.has(id));
    const newest = common.sort((a, b) => (known.get(b)?.generation ?? 0) - (known.get(a)?.generation ?? 0))[0];
    if (newest === undefined) return undefined;
    const file = this.pastFile(newest, conflict.path);
    return fs.access(file).then(() => file, () => undefined);
  }
}

export interface Event { time: string; event: string; message: string; path?: string; beside?: string }

/** Tells of what happened since the last call; nothing at the first. */
export class Events {
  private seen: string[] | undefined;

  constructor(private readonly workspace: Workspace) {}

  async next(): Promise<Event[]> {
    const text = await fs.readFile(path.join(this.workspace.mountpoint, ".kura", "events"), "utf8");
    const lines = text.split("\n").filter((line) => line !== "");
    const before = this.seen;
    this.seen = lines;
    if (!before) return [];
    const last = before.at(-1);
    // The oldest lines leave the log; what was seen last is looked for from the end.
    const at = last === undefined ? -1 : lines.lastIndexOf(last);
    return lines.slice(at + 1).map((line) => JSON.parse(line) as Event);
  }
}

/** Runs the program. The passphrase goes through its standard input, to be seen by nobody: neither arguments nor environment. */
export function run(program: string, args: string[], passphrase?: string): Promise<string> {
  const env: NodeJS.ProcessEnv = { ...process.env };
  if (passphrase !== undefined) {
    for (const name of ["KURA_PASSPHRASE", "KURA_PASSPHRASE_FILE"]) delete env[name];
    // The program reads what this prints, and this prints what it is given.
    env["KURA_PASSPHRASE_COMMAND"] = "cat";
  }
  return new Promise((done, failed) => {
    const child = spawn(program, args, { env, stdio: [passphrase === undefined ? "ignore" : "pipe", "pipe", "pipe"] });
    let [out, err] = ["", ""];
    child.stdout?.on("data", (part: Buffer) => { out += part.toString(); });
    child.stderr?.on("data", (part: Buffer) => { err += part.toString(); });
    child.on("error", (error) => failed(new Error(`${program} cannot be run: ${error.message}`)));
    child.on("close", (code) => {
      if (code === 0 || code === 3) done(out);
      else failed(new Refusal(code === 12 ? "wrong-key" : "error", err.replace(/^kura: /, "").trim() || `${program} ended with ${code}`));
    });
    // A program that ends early does not read it all; it says why.
    child.stdin?.on("error", () => {});
    child.stdin?.end(`${passphrase}\n`);
  });
}
