// What the status bar says. Pure functions.

import type { PathText, Status } from "./workspace";

export interface Shown { text: string; tooltip: string; isTrouble: boolean }

const count = (number: number, one: string): string => `${number} ${one}${number === 1 ? "" : "s"}`;

/** The state of the workspace in a few words. */
export function workspaceState(status: Status): Shown {
  const conflicts = status.conflicts > 0 ? `, ${count(status.conflicts, "conflict")}` : "";
  const say = (icon: string, text: string, tooltip: string, isTrouble = false): Shown =>
    ({ text: `$(${icon}) ${text}${conflicts}`, tooltip, isTrouble: isTrouble || status.conflicts > 0 });
  if (status.blocked) return say("error", "kura: stopped", `Publishing stopped: ${status.blocked.reason}`, true);
  if (status.unrecorded) return say("error", "kura: not recorded", status.unrecorded.reason, true);
  if (status.read_only) return say("lock", "kura: read-only", status.read_only);
  const waiting = count(status.unpublished_versions, "version");
  if (status.offline) {
    return say("cloud-offline", `kura: offline, ${waiting} wait`, `Since ${status.offline.since}: ${status.offline.reason}`, true);
  }
  if (status.unpublished_versions > 0) return say("cloud-upload", `kura: publishing ${waiting}`, "What waits is safe on this machine.");
  if (status.unrecorded_changes) return say("circle-outline", "kura: changed", "Changes that no version holds yet.");
  return say("check", "kura: published", `Everything is published in ${status.store}.`);
}

const text = (path: PathText): string => (typeof path === "string" ? path : path.hex);

/** The state of one file in a few words; undefined when there is nothing to say but that it is published. */
export function fileState(status: Status, path: string, conflicts: { path: PathText; beside: PathText }[]): Shown {
  const lock = status.locks.find(({ path: locked }) => locked === "." || path === locked || path.startsWith(`${locked}/`));
  if (conflicts.some((one) => text(one.path) === path || text(one.beside) === path)) {
    return { text: "$(git-merge) conflict", tooltip: "Two machines changed this file. Click to resolve.", isTrouble: true };
  }
  if (lock && !lock.ours) return { text: `$(lock) ${lock.holder}`, tooltip: `Locked by ${lock.holder}: it cannot be changed here.`, isTrouble: true };
  if (lock) return { text: "$(lock) locked", tooltip: "Locked by this machine.", isTrouble: false };
  const waiting = status.waiting_files?.find((one) => text(one.path) === path);
  if (waiting) return { text: `$(cloud-upload) ${waiting.state}`, tooltip: "Waits to be published; safe on this machine.", isTrouble: false };
  return { text: "$(check) published", tooltip: "This file is published.", isTrouble: false };
}

/** A time for people: today's without its date. */
export function timeText(time: string, now = new Date()): string {
  const at = new Date(time);
  const isToday = at.toDateString() === now.toDateString();
  return isToday ? at.toLocaleTimeString() : `${at.toLocaleDateString()} ${at.toLocaleTimeString()}`;
}

/** What a version is called. */
export function versionTitle(version: { message: string | null; names: string[]; origin: string }): string {
  const first = version.message?.split("\n", 1)[0] ?? version.origin;
  return version.names.length > 0 ? `${version.names.join(", ")}: ${first}` : first;
}
