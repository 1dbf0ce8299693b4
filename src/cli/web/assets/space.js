// How large the workspace was over time, what the store holds, and what a retention policy would keep.

import { ask, doing, get, post } from "./api.js";
import { clock, count, day, h, moment, put, size, svg } from "./dom.js";

const WIDE = 900;
const HIGH = 260;
const LEFT = 76;
const LOW = 28;

function ticks(max) {
  const unit = 1024 ** Math.floor(Math.log(Math.max(max, 1)) / Math.log(1024));
  const raw = max / unit / 4;
  const step = [1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 200, 256, 512].find((one) => one >= raw) ?? raw;
  const found = [];
  for (let at = 0; at * step * unit <= max * 1.05; at += 1) found.push(at * step * unit);
  return found;
}

// Bytes over time as a curve of steps; `tell` says in words what a point is.
function plot(name, points, tell) {
  const times = points.map((point) => new Date(point.time).getTime());
  // What was last still holds.
  const [first, last] = [times[0], Math.max(times.at(-1), Date.now(), times[0] + 1000)];
  const marks = ticks(Math.max(...points.map((point) => point.bytes), 16));
  const max = Math.max(marks.at(-1), ...points.map((point) => point.bytes));
  const x = (time) => LEFT + ((time - first) / (last - first)) * (WIDE - LEFT - 12);
  const y = (bytes) => 10 + (1 - bytes / max) * (HIGH - LOW - 10);
  const line = points.map((point, at) => (at === 0 ? `M${x(times[at]).toFixed(1)} ${y(point.bytes).toFixed(1)}`
    : `H${x(times[at]).toFixed(1)}V${y(point.bytes).toFixed(1)}`)).join("") + `H${WIDE - 12}`;
  const label = (time) => (last - first < 36 * 3600e3 ? clock(time) : day(time));
  const at = [0, 0.25, 0.5, 0.75, 1].map((part) => first + part * (last - first));
  const cursor = svg("line", { class: "cursor", y1: 10, y2: HIGH - LOW, visibility: "hidden" });
  const said = h("p", { class: "dim", "aria-live": "polite" }, tell(points.at(-1)));
  const shape = svg("svg", { class: "plot", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", tabindex: "0",
    "aria-label": `${name}, from ${size(points[0].bytes)} to ${size(points.at(-1).bytes)}` },
    marks.map((bytes) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDE - 12, y1: y(bytes), y2: y(bytes) }),
      svg("text", { x: LEFT - 8, y: y(bytes) + 4, "text-anchor": "end" }, size(bytes)),
    ]),
    at.map((time, n) => svg("text", { x: x(time), y: HIGH - 8, "text-anchor": n === 0 ? "start" : n === 4 ? "end" : "middle" }, label(new Date(time)))),
    svg("path", { class: "area", d: `${line}V${y(0)}H${LEFT}Z` }), svg("path", { class: "line", d: line }), cursor);
  let chosen = points.length - 1;
  const point = (to) => {
    chosen = Math.min(Math.max(to, 0), points.length - 1);
    const found = points[chosen];
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", x(times[chosen]));
    cursor.setAttribute("x2", x(times[chosen]));
    said.replaceChildren(...tell(found));
  };
  shape.addEventListener("mousemove", (event) => {
    const box = shape.getBoundingClientRect();
    const time = first + (((event.clientX - box.left) / box.width * WIDE - LEFT) / (WIDE - LEFT - 12)) * (last - first);
    const next = times.findIndex((one) => one > time);
    point(next < 0 ? points.length - 1 : next - 1);
  });
  shape.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      point(chosen + by);
    }
  });
  return h("div", {}, shape, said);
}

const RULES = [["last", "newest versions,"], ["hourly", "hours"], ["daily", "days"], ["weekly", "weeks"], ["monthly", "months"], ["yearly", "years"]];

function retention() {
  const inputs = RULES.map(([name, text]) => [name, text, h("input", { type: "number", min: "0", max: "100000", value: { last: 20, daily: 30, monthly: 12 }[name] ?? 0, name })]);
  const out = h("div", { class: "retention" });
  const show = async (event) => {
    event.preventDefault();
    const keep = Object.fromEntries(inputs.map(([name, , input]) => [name, Number(input.value) || 0]));
    const found = await doing(() => post("/api/retention", keep));
    if (!found) return;
    const most = Math.max(...found.months.map((month) => month.kept + month.forgotten));
    out.replaceChildren(
      h("p", {}, h("strong", {}, `${count(found.kept, "version")} would stay, ${found.forgotten.toLocaleString()} would be forgotten.`), " Nothing was done."),
      h("table", { class: "months" }, h("tbody", {}, found.months.map(({ month, kept, forgotten }) =>
        h("tr", {}, h("th", { scope: "row" }, month),
          h("td", {}, svg("svg", { class: "bar", viewBox: "0 0 300 14", "aria-hidden": "true" },
            svg("rect", { class: "keep", width: (kept / most) * 300, height: 14 }),
            svg("rect", { class: "lose", x: (kept / most) * 300, width: (forgotten / most) * 300, height: 14 }))),
          h("td", {}, `${kept} stay, ${forgotten} go`))))),
      h("details", {}, h("summary", {}, "Versions that stay"), h("ul", { class: "list" }, found.first_kept.map(({ version, reasons }) =>
        h("li", { class: "row" }, h("a", { href: `#/version/${version.id}` }, moment(version.time)), h("span", { class: "dim" }, reasons.join(", ")))))),
      h("details", {}, h("summary", {}, "Versions that go"), h("ul", { class: "list" }, found.first_forgotten.map((version) =>
        h("li", { class: "row" }, h("a", { href: `#/version/${version.id}` }, moment(version.time)), h("span", { class: "dim" }, version.message ?? ""))))),
      h("p", { class: "dim" }, "To do it: ", h("code", {}, `kura forget ${RULES.filter(([name]) => keep[name]).map(([name]) => `--keep-${name} ${keep[name]}`).join(" ")}`)));
  };
  return h("form", { onsubmit: show }, h("p", { class: "fields row" }, "Keep ", inputs.map(([, text, input], at) => [h("label", {}, input, ` ${text}`), at === 0 && " and the newest of each of the last "]), h("button", { type: "submit" }, "Preview")), out);
}

const inFiles = (point) => [h("a", { href: `#/version/${point.id}` }, moment(point.time)), `: ${size(point.bytes)} in ${count(point.files, "file")}`];
const inStore = (point) => [`${moment(point.time)}: ${size(point.bytes)} in ${count(point.objects, "object")}`];

// A button that is off while it works.
function working(text, work) {
  const button = h("button", {}, text);
  button.addEventListener("click", () => doing(async () => {
    button.disabled = true;
    try {
      await work();
    } finally {
      button.disabled = false;
    }
  }));
  return button;
}

// What the store holds; listing it may take a while, so it is done when asked for, and kept.
async function stored() {
  const shown = h("div", { "data-stored": true });
  const show = (found) => {
    if (!found) return;
    shown.replaceChildren(found.points.length > 0 ? plot("What the store holds", found.points, inStore) : h("p", { class: "dim" }, "The store tells no times."),
      h("p", {}, `${count(found.objects, "object")}, ${size(found.bytes)} for all versions together, counted ${moment(found.counted)}.`));
  };
  show(await get("/api/stored"));
  const needless = h("span", { "aria-live": "polite" });
  return [shown, h("p", { class: "toolbar" },
    working("Count what the store holds", async () => show(await get("/api/stored?again=true"))),
    working("Look for what nobody needs", async () => {
      const found = await ask("gc", { delete: false });
      needless.textContent = `Nobody needs ${size(found.dead_bytes)} of ${size(found.bytes)}.`;
    }), needless)];
}

export async function space(place) {
  const { versions, points } = await get("/api/sizes");
  put(place, h("div", { class: "toolbar" }, h("h2", {}, "Space"), h("span", { class: "dim" }, count(versions, "version"))),
    h("h3", {}, "Bytes in files, over time"),
    points.length > 0 ? plot("Bytes in files", points, inFiles) : h("p", { class: "dim" }, "No versions."),
    h("h3", {}, "Bytes in the store, by when they were stored"),
    h("p", { class: "dim" }, "Of what lies there now: what was deleted is in none of these sums."), await stored(),
    h("h3", {}, "What a retention policy would keep"), retention());
}
