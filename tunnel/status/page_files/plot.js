// Line plots of the history as SVG, each with a table of its current, lowest and highest values.

import { create, setAttribute, setText, updateList } from "./dom.js";
import { formatClock } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 132;
const LEFT = 56;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 22;
const LINES = 2; // of the grid, besides the base

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The lowest round number that is not below a value: 1, 2 or 5 times a power of ten. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= value * 0.999999);
}

export class Plot {
  /** `series` are { label, read(point) }; `format` makes a text with its unit; the axis ends at `least` or higher. */
  constructor(parent, { title, series, format, least }) {
    this.series = series;
    this.format = format;
    this.least = least;
    this.points = [];
    this.svg = shape("svg", { role: "img", height: HEIGHT, class: "plot" });
    this.readout = create("p", { class: "readout muted", "aria-hidden": "true" });
    this.values = create("tbody");
    const head = create("tr", {}, create("td"), ...["now", "lowest", "highest"].map((text) => create("th", { scope: "col" }, text)));
    const caption = create("caption", { class: "hidden" }, `${title}: values of the last 15 minutes`);
    this.title = title;
    parent.append(
      create(
        "figure",
        {},
        create("figcaption", {}, create("h3", {}, title), this.readout),
        this.svg,
        create("table", { class: "values" }, caption, create("thead", {}, head), this.values),
      ),
    );
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  update(points, interval, length) {
    this.points = points;
    this.interval = interval;
    this.span = interval * length;
    this.describe();
    this.draw();
  }

  describe() {
    const columns = this.series.map(({ label, read }) => ({ label, values: this.points.map(read) }));
    const show = (values, choose) => (values.length ? this.format(choose(values)) : "–");
    const rows = columns.map(({ label, values }) => [
      label,
      show(values, (all) => all.at(-1)),
      show(values, (all) => Math.min(...all)),
      show(values, (all) => Math.max(...all)),
    ]);
    const words = rows.map(([label, now, lowest, highest]) => `${label} now ${now}, lowest ${lowest}, highest ${highest}`);
    setAttribute(this.svg, "aria-label", `${this.title}, last 15 minutes: ${words.join("; ")}`);
    updateList(this.values, rows, makeValueRow, (row, texts, number) => {
      texts.forEach((text, index) => setText(index === 0 ? row.firstChild.lastChild : row.children[index], text));
      setAttribute(row.firstChild.firstChild, "class", `key series-${number + 1}`);
    });
  }

  draw() {
    const width = this.svg.clientWidth;
    if (!width || !this.span) return;
    this.width = width;
    this.end = this.points.length ? this.points.at(-1)[0] : 0;
    const highest = Math.max(this.least, ...this.points.flatMap((point) => this.series.map(({ read }) => read(point))));
    this.top = roundUp(highest);
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...this.axes(), ...this.series.flatMap((one, index) => this.curve(one, index + 1)));
    this.cursor = shape("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.svg.append(this.cursor);
  }

  x(time) {
    return LEFT + (1 - (this.end - time) / this.span) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    return TOP + (1 - value / this.top) * (HEIGHT - TOP - BOTTOM);
  }

  axes() {
    const found = [];
    for (let line = 0; line <= LINES; line += 1) {
      const value = (this.top / LINES) * line;
      const y = Math.round(this.y(value)) + 0.5;
      found.push(shape("line", { class: line ? "grid" : "base", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }));
      found.push(shape("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, this.format(value)));
    }
    const minutes = this.span / 60;
    for (const [part, anchor] of [[0, "start"], [1 / 3, "middle"], [2 / 3, "middle"], [1, "end"]]) {
      const x = LEFT + part * (this.width - LEFT - RIGHT);
      const text = part === 1 ? "now" : `−${Math.round(minutes * (1 - part))} min`;
      found.push(shape("text", { x, y: HEIGHT - 5, "text-anchor": anchor }, text));
    }
    return found;
  }

  curve({ read }, number) {
    const parts = [];
    let before = -Infinity;
    for (const point of this.points) {
      const isGap = point[0] - before > this.interval * 2.5; // there was no process, or it was stopped
      if (isGap) parts.push([]);
      parts.at(-1).push([this.x(point[0]).toFixed(1), this.y(read(point)).toFixed(1)]);
      before = point[0];
    }
    const base = this.y(0).toFixed(1);
    return parts.flatMap((part) => {
      const line = part.map((pair) => pair.join(" ")).join(" L");
      const area = `M${part[0][0]} ${base} L${line} L${part.at(-1)[0]} ${base} Z`;
      const shapes = [shape("path", { class: `line series-${number}`, d: part.length > 1 ? `M${line}` : `M${line} h1` })];
      return number === 1 ? [shape("path", { class: "area", d: area }), ...shapes] : shapes;
    });
  }

  /** Show the values of the point next to an x coordinate. */
  point(x) {
    const times = x === null ? [] : this.points.map((point) => Math.abs(this.x(point[0]) - x));
    const nearest = this.points[times.indexOf(Math.min(...times))];
    if (!this.cursor || !nearest) {
      setText(this.readout, "");
      if (this.cursor) this.cursor.setAttribute("visibility", "hidden");
      return;
    }
    for (const name of ["x1", "x2"]) this.cursor.setAttribute(name, this.x(nearest[0]));
    this.cursor.setAttribute("visibility", "visible");
    const values = this.series.map(({ read }) => this.format(read(nearest)));
    setText(this.readout, `${formatClock(nearest[0])}: ${values.join(" / ")}`);
  }
}

function makeValueRow() {
  const label = create("th", { scope: "row" }, create("span", { "aria-hidden": "true" }), create("span"));
  return create("tr", {}, label, create("td"), create("td"), create("td"));
}
