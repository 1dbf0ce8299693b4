// A `vscode` of our own: what the extension says and asks is kept, and answers are given beforehand.

import Module from "node:module";

export const said: string[] = [];
export const executed: { command: string; args: unknown[] }[] = [];
export const commands = new Map<string, (...args: unknown[]) => unknown>();
export const bars: { text: string; tooltip: string; shown: boolean; command?: string; backgroundColor?: unknown }[] = [];
export const secrets = new Map<string, string>();
/** What is answered next, by kind of question. */
export const answers: { input: (string | undefined)[]; pick: ((items: { label: string }[]) => unknown)[]; message: (string | undefined)[]; dialog: string[] } =
  { input: [], pick: [], message: [], dialog: [] };
export const settings = new Map<string, unknown>();
export const editor: { active: { document: Document } | undefined; folders: { uri: Uri }[] } = { active: undefined, folders: [] };

interface Uri { scheme: string; path: string; query: string; fsPath: string; toString(): string }
const uri = (scheme: string, path: string, query = ""): Uri => ({ scheme, path, query, fsPath: path, toString: () => `${scheme}://${path}` });
export const file = (path: string): Uri => uri("file", path);
export interface Document { uri: Uri; isDirty: boolean; getText(): string }
/** A file as an editor shows it. */
export const shown = (at: string, text = "", isDirty = false): { document: Document } =>
  ({ document: { uri: file(at), isDirty, getText: () => text } });
/** What keeps the documents of a scheme. */
export const providers = new Map<string, { readFile(uri: Uri): Uint8Array; writeFile(uri: Uri, content: Uint8Array): void }>();
export const closed: ((document: { uri: Uri }) => void)[] = [];
/** What is answered by commands of VS Code. */
export const replies = new Map<string, () => unknown>();
const disposable = { dispose: (): void => {} };

class EventEmitter<T> {
  private readonly listeners: ((value: T) => void)[] = [];
  readonly event = (listener: (value: T) => void): typeof disposable => {
    this.listeners.push(listener);
    return disposable;
  };
  fire(value: T): void {
    this.listeners.forEach((listener) => listener(value));
  }
}

const message = (text: string, ...rest: unknown[]): Promise<string | undefined> => {
  said.push(text);
  const options = rest.filter((one) => typeof one === "object" && one !== null) as { detail?: string }[];
  options.forEach((one) => one.detail !== undefined && said.push(one.detail));
  return Promise.resolve(rest.some((one) => typeof one === "string") ? answers.message.shift() : undefined);
};

export const vscode = {
  EventEmitter,
  StatusBarAlignment: { Left: 1, Right: 2 },
  ProgressLocation: { Notification: 15 },
  ThemeIcon: class { constructor(readonly id: string) {} },
  ThemeColor: class { constructor(readonly id: string) {} },
  TreeItem: class { constructor(readonly label: string) {} },
  Uri: { file, from: (given: Uri) => uri(given.scheme, given.path, given.query) },
  Disposable: class { dispose(): void {} },
  FileType: { File: 1 },
  FilePermission: { Readonly: 1 },
  FileSystemError: { FileNotFound: (at: Uri) => new Error(`${at.toString()} is not there`), NoPermissions: Error, Unavailable: Error },
  commands: {
    registerCommand: (id: string, act: (...args: unknown[]) => unknown) => {
      commands.set(id, act);
      return disposable;
    },
    executeCommand: (command: string, ...args: unknown[]) => {
      executed.push({ command, args });
      return Promise.resolve(replies.get(command)?.());
    },
  },
  window: {
    get activeTextEditor() { return editor.active; },
    tabGroups: { activeTabGroup: { activeTab: undefined } },
    createStatusBarItem: () => {
      const bar = { text: "", tooltip: "", shown: false, show() { this.shown = true; }, hide() { this.shown = false; }, dispose() {} };
      bars.push(bar);
      return bar;
    },
    registerTreeDataProvider: () => disposable,
    onDidChangeActiveTextEditor: () => disposable,
    setStatusBarMessage: (text: string) => { said.push(text); return disposable; },
    showInformationMessage: message, showWarningMessage: message, showErrorMessage: message,
    showInputBox: () => Promise.resolve(answers.input.shift()),
    showOpenDialog: () => Promise.resolve(answers.dialog.splice(0, 1).map(file)),
    showQuickPick: (items: { label: string }[]) => Promise.resolve(answers.pick.shift()?.(items)),
    showTextDocument: () => Promise.resolve(),
    withProgress: (_options: unknown, work: () => Promise<unknown>) => work(),
  },
  workspace: {
    get workspaceFolders() { return editor.folders; },
    onDidSaveTextDocument: () => disposable,
    onDidCloseTextDocument: (listener: (document: { uri: Uri }) => void) => {
      closed.push(listener);
      return disposable;
    },
    registerFileSystemProvider: (scheme: string, provider: never) => {
      providers.set(scheme, provider);
      return disposable;
    },
    openTextDocument: (given: { content: string }) => { said.push(given.content); return Promise.resolve(given); },
    getConfiguration: () => ({ get: (name: string, usual: unknown) => settings.get(name) ?? usual }),
  },
};

export const context = {
  subscriptions: [] as { dispose(): void }[],
  secrets: {
    get: (key: string) => Promise.resolve(secrets.get(key)),
    store: (key: string, value: string) => { secrets.set(key, value); return Promise.resolve(); },
    delete: (key: string) => { secrets.delete(key); return Promise.resolve(); },
  },
  globalState: { get: (_key: string, usual: unknown) => usual, update: () => Promise.resolve() },
};

/** Makes `require("vscode")` give ours; before anything of the extension is loaded. */
export function install(): void {
  const modules = Module as unknown as { _load(request: string, ...rest: unknown[]): unknown };
  const load = modules._load.bind(modules);
  modules._load = (request, ...rest) => (request === "vscode" ? vscode : load(request, ...rest));
}
