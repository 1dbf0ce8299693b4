// What the workspace changed by itself (restored, or took in from others) is shown: no file watcher tells of it.

import { promises as fs } from "node:fs";
import * as vscode from "vscode";
import type { Workspace } from "./workspace";

/** Loads the active editor anew when its file has another text; editors that are not active do so when they become it. */
export async function reload(workspace: Workspace): Promise<void> {
  const document = vscode.window.activeTextEditor?.document;
  if (document?.uri.scheme !== "file" || workspace.pathOf(document.uri.fsPath) === undefined) return;
  const text = await fs.readFile(document.uri.fsPath, "utf8").catch(() => undefined);
  const lines = (of: string): string => of.replace(/^\uFEFF/, "").replaceAll("\r\n", "\n");
  // A text in another encoding cannot be compared.
  if (text === undefined || text.includes("\uFFFD") || lines(text) === lines(document.getText())) return;
  if (!document.isDirty && vscode.window.activeTextEditor?.document === document) {
    await vscode.commands.executeCommand("workbench.action.files.revert");
  }
}
