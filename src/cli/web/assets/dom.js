// Elements without markup: texts from files can never become part of the page.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  return put(element, ...children);
}

// Appends what is there of children, which may be lists.
export function put(element, ...children) {
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false && child !== 0));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (bytes >= 1024 && at < units.length - 1) {
    bytes /= 1024;
    at += 1;
  }
  return `${at === 0 ? bytes : bytes.toFixed(bytes < 10 ? 1 : 0)} ${units[at]}`;
}

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
export const day = (text) => DATE.format(new Date(text));
export const clock = (text) => TIME.format(new Date(text));
export const moment = (text) => (text ? `${day(text)}, ${clock(text)}` : "");
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

// A path is a text, or {"hex": "…"} where it is none; in addresses it is `~HEX` then.
export const pathText = (path) => (typeof path === "string" ? path : `⟨${path.hex}⟩`);
export const toAddress = (path) =>
  typeof path === "string" ? path.split("/").map(encodeURIComponent).join("/").replace(/^~/, "%7E") : `~${path.hex}`;
export function fromAddress(text) {
  if (text.startsWith("~")) return { hex: text.slice(1) };
  return text.split("/").map(decodeURIComponent).join("/");
}
const toHex = (text) => [...new TextEncoder().encode(text)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
export function join(dir, name) {
  if (dir === "") return name;
  if (typeof dir === "string" && typeof name === "string") return `${dir}/${name}`;
  const hex = (part) => (typeof part === "string" ? toHex(part) : part.hex);
  return { hex: `${hex(dir)}2f${hex(name)}` };
}

export function time(text, shown = clock(text)) {
  return h("time", { datetime: text, title: moment(text) }, shown);
}

export const shortId = (id) => id.slice(0, 18);

const LETTERS = {
  "+": ["added", "add"],
  "-": ["removed", "del"],
  M: ["changed", "mod"],
  R: ["renamed", "mod"],
  T: ["another type", "mod"],
  m: ["attributes", "dim"],
};
export function letter(of) {
  const [word, kind] = LETTERS[of] ?? [of, "dim"];
  return h("abbr", { class: `letter ${kind}`, title: word, "aria-label": word }, of === "-" ? "−" : of);
}

export function toast(text, isBad = false) {
  const short = text.replace(/\b([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4})-[0-9a-f]{4}-[0-9a-f]{12}\b/g, "$1");
  const shown = h("div", { class: isBad ? "toast bad" : "toast" }, short);
  document.getElementById("toasts").append(shown);
  setTimeout(() => shown.remove(), isBad ? 15000 : 6000);
}

// Asks in a dialog; `body` may be filled in meanwhile. The value of the button, or null.
export function choose(title, body, buttons) {
  const dialog = document.getElementById("dialog");
  dialog.replaceChildren(
    h("form", { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      h("div", { class: "body" }, body),
      h("menu", {},
        h("button", { value: "" }, "Cancel"),
        buttons.map(([value, text, kind]) => h("button", { value, class: kind ?? "primary" }, text)))));
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue || null), { once: true });
  });
}
