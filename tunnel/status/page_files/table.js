// A table whose rows are updated in place, sorted by buttons and filtered by a field.

import { announce, create, setAttribute, setText } from "./dom.js";
import { formatCount } from "./format.js";

const FIRST_ROWS = 25;

/**
 * A column: `label`, `value(row)` for sorting, and `text(row)` or `update(cell, row)` for the content.
 * `kind` is a class: "number", "id", "code", "wide". The first column is the header of its row.
 */
export class DataTable {
  constructor(section, { caption, columns, keyOf, words, empty, sort, filterLabel }) {
    this.columns = columns;
    this.keyOf = keyOf;
    this.words = words;
    this.rows = [];
    this.elements = new Map();
    this.isShort = true;
    this.sort = sort; // { column, isDescending }; null for the order of the server
    this.filter = "";
    this.isHeld = false;
    this.section = section;
    if (filterLabel) this.addFilter(filterLabel);
    this.addTable(caption);
    this.emptyText = empty;
    this.empty = create("p", { class: "empty" }, empty);
    this.more = create("button", { type: "button", class: "more", hidden: "" });
    this.more.addEventListener("click", () => this.toggleLength());
    section.append(this.empty, this.more);
  }

  addFilter(label) {
    const id = `filter-${this.section.id}`;
    const field = create("input", { type: "search", id, autocomplete: "off", spellcheck: "false" });
    this.result = create("span", { class: "muted", "aria-hidden": "true" });
    field.addEventListener("input", () => {
      this.filter = field.value.trim().toLowerCase();
      this.show(true);
      clearTimeout(this.timer);
      this.timer = setTimeout(() => announce(this.describeResult()), 600);
    });
    const heading = this.section.querySelector("h2");
    const head = create("div", { class: "head" });
    heading.replaceWith(head);
    head.append(heading, create("p", { class: "filter" }, this.result, create("label", { for: id }, label), field));
  }

  addTable(caption) {
    const heads = this.columns.map((column, index) => this.makeHead(column, index));
    this.heads = heads;
    this.body = create("tbody", { role: "rowgroup" });
    this.table = create(
      "table",
      { role: "table" },
      create("caption", { class: "hidden" }, caption),
      create("thead", { role: "rowgroup" }, create("tr", { role: "row" }, ...heads)),
      this.body,
    );
    // Rows do not move under the pointer, nor while something in them has the focus.
    this.body.addEventListener("pointerenter", () => { this.isHeld = true; });
    this.body.addEventListener("pointerleave", () => { this.isHeld = false; });
    this.section.append(this.table);
  }

  makeHead(column, index) {
    const head = create("th", { scope: "col", role: "columnheader", class: column.kind ?? "" });
    if (!column.value) {
      head.append(create("span", {}, column.label));
      return head;
    }
    const button = create("button", { type: "button", class: "sort" }, column.label);
    button.addEventListener("click", () => this.sortBy(index));
    head.append(button);
    return head;
  }

  sortBy(index) {
    const isSame = this.sort?.column === index;
    const isNumber = this.columns[index].kind === "number";
    this.sort = { column: index, isDescending: isSame ? !this.sort.isDescending : isNumber };
    this.show(true);
  }

  toggleLength() {
    this.isShort = !this.isShort;
    this.show(true);
  }

  /** Show these rows from now on. */
  update(rows) {
    this.rows = rows;
    this.show(false);
  }

  show(isAsked) {
    const found = this.rows.filter((row) => !this.filter || this.words(row).toLowerCase().includes(this.filter));
    const sorted = this.sorted(found);
    const shown = this.isShort ? this.first(sorted, isAsked) : sorted;
    this.found = found.length;
    this.showRows(shown, isAsked);
    this.heads.forEach((head, index) => {
      const isSorted = this.sort?.column === index;
      setAttribute(head, "aria-sort", isSorted ? (this.sort.isDescending ? "descending" : "ascending") : null);
    });
    this.table.hidden = shown.length === 0;
    this.empty.hidden = shown.length > 0;
    setText(this.empty, this.rows.length > 0 ? "Nothing matches the filter." : this.emptyText);
    this.more.hidden = found.length <= FIRST_ROWS;
    setText(this.more, this.isShort ? `Show all ${formatCount(found.length)}` : `Show the first ${FIRST_ROWS}`);
    if (this.result) setText(this.result, this.filter ? this.describeResult() : "");
  }

  /** The first rows; while the table is in use, also those that it shows already. */
  first(sorted, isAsked) {
    const isKept = !isAsked && this.isInUse();
    return sorted.filter((row, index) => index < FIRST_ROWS || (isKept && this.elements.has(this.keyOf(row))));
  }

  describeResult() {
    return `${formatCount(this.found)} of ${formatCount(this.rows.length)}`;
  }

  sorted(rows) {
    if (!this.sort) return rows;
    const { value } = this.columns[this.sort.column];
    const sign = this.sort.isDescending ? -1 : 1;
    return rows
      .map((row) => [value(row), row])
      .sort(([one], [other]) => sign * (typeof one === "string" ? one.localeCompare(other) : one - other))
      .map(([, row]) => row);
  }

  showRows(rows, isAsked) {
    const wanted = new Map(rows.map((row) => [this.keyOf(row), row]));
    for (const [key, element] of this.elements) {
      if (!wanted.has(key)) {
        element.remove();
        this.elements.delete(key);
      }
    }
    for (const [key, row] of wanted) {
      if (!this.elements.has(key)) {
        this.elements.set(key, this.makeRow());
        this.body.append(this.elements.get(key));
      }
      this.updateRow(this.elements.get(key), row);
    }
    if (isAsked || !this.isInUse()) this.order([...wanted.keys()].map((key) => this.elements.get(key)));
  }

  isInUse() {
    const selection = document.getSelection();
    const isSelected = selection && !selection.isCollapsed && this.body.contains(selection.anchorNode);
    return this.isHeld || isSelected || this.body.contains(document.activeElement);
  }

  order(elements) {
    let next = this.body.firstElementChild;
    for (const element of elements) {
      if (element === next) next = next.nextElementSibling;
      else this.body.insertBefore(element, next);
    }
  }

  makeRow() {
    const cells = this.columns.map((column, index) => {
      const attributes = index === 0 ? { scope: "row", role: "rowheader" } : { role: "cell" };
      return create(index === 0 ? "th" : "td", { ...attributes, class: column.kind ?? "", "data-label": column.label });
    });
    return create("tr", { role: "row" }, ...cells);
  }

  updateRow(element, row) {
    this.columns.forEach((column, index) => {
      const cell = element.children[index];
      if (column.update) column.update(cell, row);
      else setText(cell, column.text(row));
    });
  }
}
