"use strict";
// Headings become buttons here, so that without scripts a heading is a heading.
const announcement = document.getElementById("announcement");

function key(row, column) {
  const cell = row.cells[column];
  const number = cell.querySelector("[data-value]");
  if (number) return Number(number.dataset.value);
  return cell.querySelector(".unseen") ? null : cell.textContent.trim();
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sort(table, heading) {
  const column = heading.cellIndex;
  const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
  // Absent values stay last either way.
  rows.sort(([a], [b]) => (a === null) - (b === null) || direction * compare(a, b));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  const order = direction > 0 ? "ascending" : "descending";
  heading.setAttribute("aria-sort", order);
  announcement.textContent = `Sorted by ${heading.textContent}, ${order}`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    heading.append(button);
  }
}
