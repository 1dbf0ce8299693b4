// Wires the workspace that is mounted around the open files to VS Code.

import * as path from "node:path";
import * as vscode from "vscode";
import * as actions from "./actions";
import { History, VersionItem } from "./history";
import { Merges, SCHEME } from "./merge";
import { reload } from "./reload";
import { fileState, workspaceState } from "./state";
import { Conflict, Events, Status, Workspace, mountAround } from "./workspace";

/** Events that are worth a notification. */
const TOLD = new Set(["conflict", "trouble"]);

class Watcher implements vscode.Disposable {
  readonly history = new History();
  readonly merges = new Merges();
  workspace: Workspace | undefined;
  private events: Events | undefined;
  private readonly state = vscode.window.createStatusBarItem(vscode.StatusBarAlignment.Left, 20);
  private readonly file = vscode.window.createStatusBarItem(vscode.StatusBarAlignment.Left, 19);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private newest: string | undefined;
  private conflicts: { key: string; found: Conflict[] } | undefined;
  private isEnded = false;

  constructor() {
    this.state.command = "kura.status";
    this.file.command = "kura.resolve";
  }

  /** Looks which workspace the open file, or the open folder, belongs to. */
  async look(): Promise<void> {
    const active = vscode.window.activeTextEditor?.document.uri;
    const file = active?.scheme === "file" ? active.fsPath : undefined;
    const folders = (vscode.workspace.workspaceFolders ?? []).map((folder) => folder.uri.fsPath);
    let mountpoint: string | undefined;
    for (const place of [...(file === undefined ? [] : [path.dirname(file)]), ...folders]) {
      mountpoint ??= await mountAround(place);
    }
    if (mountpoint !== this.workspace?.mountpoint) {
      this.workspace = mountpoint === undefined ? undefined : new Workspace(mountpoint);
      this.events = this.workspace && new Events(this.workspace);
      await vscode.commands.executeCommand("setContext", "kura.isMounted", this.workspace !== undefined);
    }
    const at = file === undefined ? undefined : this.workspace?.pathOf(file);
    const told = file === undefined ? undefined : this.workspace?.historyOf(file);
    // While editors change, none is active.
    if (active || !vscode.window.tabGroups.activeTabGroup.activeTab || !this.workspace) {
      this.history.look(this.workspace && told !== undefined ? { workspace: this.workspace, path: told } : undefined);
    }
    await this.refresh(at);
  }

  private async refresh(at: string | undefined): Promise<void> {
    if (!this.workspace) {
      this.state.hide();
      this.file.hide();
      return;
    }
    const status = await this.workspace.status(true);
    const shown = workspaceState(status);
    this.show(this.state, shown.text, shown.tooltip, shown.isTrouble);
    this.state.show();
    if (at === undefined) this.file.hide();
    else {
      // The count is of what this mount has seen; what lies beside the file may be older.
      const mayBe = status.conflicts > 0 || await this.workspace.hasBeside(at);
      const file = fileState(status, at, mayBe ? await this.conflictsOf(this.workspace, status) : []);
      this.show(this.file, file.text, file.tooltip, file.isTrouble);
      this.file.show();
    }
    if (this.newest !== undefined && this.newest !== status.newest_version) {
      this.history.refresh();
      await reload(this.workspace);
    }
    this.newest = status.newest_version;
    await this.tell();
  }

  /** The conflicts, looked for once for each version: that reads the whole tree. */
  private async conflictsOf(workspace: Workspace, status: Status): Promise<Conflict[]> {
    const key = `${workspace.mountpoint}\n${status.newest_version}\n${status.conflicts}`;
    if (this.conflicts?.key !== key) this.conflicts = { key, found: await workspace.conflicts() };
    return this.conflicts.found;
  }

  private show(item: vscode.StatusBarItem, text: string, tooltip: string, isTrouble: boolean): void {
    item.text = text;
    item.tooltip = tooltip;
    item.backgroundColor = isTrouble ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined;
  }

  private async tell(): Promise<void> {
    for (const event of (await this.events?.next()) ?? []) {
      if (!TOLD.has(event.event)) continue;
      if (event.event !== "conflict") {
        void vscode.window.showWarningMessage(`kura: ${event.message}`);
        continue;
      }
      const { workspace } = this;
      void vscode.window.showWarningMessage(`kura: ${event.message}`, "Resolve…").then((chosen) =>
        chosen && workspace ? guarded(() => actions.resolve(workspace, this.merges, event.path))() : undefined);
    }
  }

  /** Looks again and again. */
  watch(): void {
    const every = vscode.workspace.getConfiguration("kura").get("pollSeconds", 3) * 1000;
    this.timer = setTimeout(() => {
      void this.look().catch((error: Error) => {
        this.show(this.state, "$(error) kura: no answer", error.message, true);
        this.state.show();
      }).finally(() => { if (!this.isEnded) this.watch(); });
    }, Math.max(every, 1000));
  }

  dispose(): void {
    this.isEnded = true;
    clearTimeout(this.timer);
    this.state.dispose();
    this.file.dispose();
  }
}

/** Says what failed instead of failing silently. */
function guarded<A extends unknown[]>(act: (...args: A) => Promise<void>): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await act(...args);
    } catch (error) {
      void vscode.window.showErrorMessage(`kura: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
}

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const watcher = new Watcher();
  const current = (act: (workspace: Workspace) => Promise<void>) => async (): Promise<void> => {
    if (watcher.workspace) return act(watcher.workspace);
    void vscode.window.showInformationMessage("Neither the open file nor the open folder is in a mounted kura workspace.");
  };
  const after = <A extends unknown[]>(act: (...args: A) => Promise<void>) => async (...args: A): Promise<void> => {
    await act(...args);
    watcher.history.refresh();
    await watcher.look();
  };
  const commands: Record<string, (...args: never[]) => Promise<void>> = {
    "kura.mount": after(() => actions.mount(context)),
    "kura.unmount": after(current((workspace) => actions.unmount(workspace))),
    "kura.forgetPassphrase": () => actions.forgetPassphrase(context),
    "kura.snapshot": after(current((workspace) => actions.snapshot(workspace))),
    "kura.refresh": after(() => Promise.resolve()),
    "kura.more": () => watcher.history.more(),
    "kura.open": (item: VersionItem) => actions.open(item),
    "kura.compare": (item: VersionItem) => actions.compare(item),
    "kura.compareBefore": (item: VersionItem) => actions.compareBefore(item),
    "kura.compareWith": (uri?: vscode.Uri) => actions.compareWith(uri),
    "kura.restore": after((item: VersionItem) => actions.restore(item)),
    "kura.resolve": after(current(async (workspace) => actions.resolve(workspace, watcher.merges, (await actions.placeOf())?.path))),
    "kura.completeMerge": after((uri?: vscode.Uri) => watcher.merges.complete(uri)),
    "kura.lock": after((uri?: vscode.Uri) => actions.setLock(true, uri)),
    "kura.unlock": after((uri?: vscode.Uri) => actions.setLock(false, uri)),
    "kura.status": current(async (workspace) => {
      const reply = await workspace.ask("status");
      const shown = await vscode.workspace.openTextDocument({ content: reply.message });
      await vscode.window.showTextDocument(shown, { preview: true });
    }),
  };
  const look = guarded(() => watcher.look());
  context.subscriptions.push(
    watcher,
    vscode.window.registerTreeDataProvider("kura.history", watcher.history),
    vscode.workspace.registerFileSystemProvider(SCHEME, watcher.merges, { isCaseSensitive: true }),
    vscode.workspace.onDidCloseTextDocument(({ uri }) => uri.scheme === SCHEME && void guarded(after(() => watcher.merges.closed(uri)))()),
    vscode.window.onDidChangeActiveTextEditor(() => void look()),
    vscode.workspace.onDidSaveTextDocument(() => void look()),
    ...Object.entries(commands).map(([id, act]) => vscode.commands.registerCommand(id, guarded(act))),
  );
  await look();
  watcher.watch();
}

export function deactivate(): void {}
