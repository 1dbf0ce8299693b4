// What the server is asked. A failure is an Error with the words of the command line.

import { toast } from "./dom.js";

async function fetched(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("kura web does not answer; it may have been ended");
  }
  if (response.status === 401) {
    throw Object.assign(new Error("This page has no session any more. Start `kura web` again."), { isClosed: true });
  }
  return response;
}

async function answer(response) {
  const text = await response.text();
  let reply;
  try {
    reply = JSON.parse(text);
  } catch {
    throw new Error(text || `the server answered ${response.status}`);
  }
  if (!response.ok) throw failure(reply);
  return reply;
}

function failure(reply) {
  const hint = reply.hint ? ` — ${reply.hint}` : "";
  return Object.assign(new Error(`${reply.message}${hint}`), { code: reply.code });
}

export const post = async (path, body) =>
  answer(await fetched(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }));
export const get = async (path) => answer(await fetched(path));

// One request of the command table; the whole reply, when it was done in part at least.
export async function reply(op, args = {}) {
  const found = await post("/api/ask", { op, ...args });
  if (!found.ok && found.code !== "partial") throw failure(found);
  return found;
}
export const ask = async (op, args) => (await reply(op, args)).data;

export function fileAddress(version, path, more = {}) {
  const query = new URLSearchParams({ version, ...(typeof path === "string" ? { path } : { hex: path.hex }), ...more });
  return `/api/file?${query}`;
}

// The first bytes of a file, and its size.
export async function firstBytes(version, path, max) {
  const response = await fetched(fileAddress(version, path, { max }));
  if (!response.ok) await answer(response);
  const bytes = new Uint8Array(await response.arrayBuffer());
  return { bytes, size: Number(response.headers.get("x-kura-size")), media: response.headers.get("content-type") };
}

// Exchanges the token in the address for a session, and takes it out of the address first.
export async function openSession() {
  const found = /^#token=([0-9a-f]+)$/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", "/");
  const response = await fetched("/api/session", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token: found[1] }),
  });
  if (!response.ok) throw Object.assign(new Error(await response.text()), { isClosed: true });
}

// Does something and says how it went.
export async function doing(work) {
  try {
    return await work();
  } catch (error) {
    toast(error.message, true);
    return null;
  }
}
