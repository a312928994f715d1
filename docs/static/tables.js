"use strict";
// Without scripts, headings are headings, and all rows are shown.

function compare(a, b) {
  const [x, y] = [parseFloat(a), parseFloat(b)];
  return isNaN(x) || isNaN(y) ? a.localeCompare(b, "en") : x - y;
}

function sort(table, heading) {
  const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => [row.cells[heading.cellIndex].textContent.trim(), row]);
  rows.sort(([a], [b]) => direction * compare(a, b));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
}

function filter(table, text) {
  const words = text.toLowerCase().split(/\s+/);
  for (const row of table.tBodies[0].rows) {
    row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    heading.append(button);
  }
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "Filter, for example: digits-seeds better";
  field.setAttribute("aria-label", "Filter the rows");
  field.addEventListener("input", () => filter(table, field.value));
  table.before(field);
}
