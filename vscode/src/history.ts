// The history of the file that is looked at, as a tree: newest first, further versions on demand.

import * as vscode from "vscode";
import { timeText, versionTitle } from "./state";
import type { Step, Workspace } from "./workspace";

const PAGE = 50;

/** One version of a file. */
export interface VersionItem { workspace: Workspace; path: string; step: Step }
interface MoreItem { more: true }
export type Item = VersionItem | MoreItem;

const LETTERS: Record<string, string> = { "+": "diff-added", "-": "diff-removed", R: "diff-renamed", M: "diff-modified" };

export class History implements vscode.TreeDataProvider<Item> {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.changed.event;
  private place: { workspace: Workspace; path: string } | undefined;
  private steps: Step[] = [];
  private next: string | undefined;
  private isLoaded = false;

  /** Shows the history of another file, or of none. */
  look(place: { workspace: Workspace; path: string } | undefined): void {
    if (this.place?.path === place?.path && this.place?.workspace.mountpoint === place?.workspace.mountpoint) return;
    this.place = place;
    this.refresh();
  }

  refresh(): void {
    [this.steps, this.next, this.isLoaded] = [[], undefined, false];
    this.changed.fire();
  }

  async more(): Promise<void> {
    await this.load();
    this.changed.fire();
  }

  private async load(): Promise<void> {
    const place = this.place;
    if (!place) return;
    const found = await place.workspace.history(place.path, PAGE + 1, this.next);
    if (place !== this.place) return;
    this.next = found.length > PAGE ? found.pop()?.id : undefined;
    this.steps.push(...found);
    this.isLoaded = true;
  }

  async getChildren(item?: Item): Promise<Item[]> {
    const place = this.place;
    if (item || !place) return [];
    if (!this.isLoaded) {
      try {
        await this.load();
      } catch {
        // A file that no version has yet, as one that was just made.
        return [];
      }
    }
    const items: Item[] = this.steps.map((step) => ({ ...place, step }));
    return this.next === undefined ? items : [...items, { more: true }];
  }

  getTreeItem(item: Item): vscode.TreeItem {
    if ("more" in item) {
      const more = new vscode.TreeItem("Older versions…");
      more.command = { command: "kura.more", title: "Older versions" };
      return more;
    }
    const { step } = item;
    const shown = new vscode.TreeItem(`${timeText(step.time)}  ${versionTitle(step)}`);
    shown.id = `${item.workspace.mountpoint}\n${item.path}\n${step.id}`;
    shown.description = `${step.user}@${step.host}`;
    shown.tooltip = `${step.message ?? step.origin}\n${step.time}\n${step.id}`;
    shown.iconPath = new vscode.ThemeIcon(LETTERS[step.change.letter] ?? "history");
    shown.contextValue = step.change.letter === "-" ? "removal" : "version";
    shown.command = { command: "kura.compareBefore", title: "Show what it changed", arguments: [item] };
    return shown;
  }
}
