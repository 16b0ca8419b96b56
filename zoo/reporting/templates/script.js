"use strict";
function sortKey(cell) {
  const text = cell.textContent.trim(), number = parseFloat(text.replace(/,/g, ""));
  return [/^[-\d.]/.test(text) && !isNaN(number) ? number : null, text];
}
function compare(a, b) {
  if (a[0] !== null && b[0] !== null) return a[0] - b[0];
  if (a[0] !== null || b[0] !== null) return a[0] === null ? -1 : 1;
  return a[1].localeCompare(b[1]);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sorted = head.getAttribute("aria-sort");
    const number = head.classList.contains("right");
    const down = sorted ? sorted === "ascending" : number;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
    rows.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]));
    body.append(...rows.map((row) => row[1]));
  }));
}
for (const select of document.querySelectorAll("select[data-matrix]")) {
  const table = document.getElementById(select.dataset.matrix);
  const rows = [...table.tBodies[0].rows], lines = [table.tHead.rows[0], ...rows];
  const cells = lines.map((line) => [...line.cells]);
  const orders = {
    given: () => 0,
    name: (a, b) => rows[a].cells[0].textContent.localeCompare(rows[b].cells[0].textContent),
    accuracy: (a, b) => rows[a].dataset.accuracy - rows[b].dataset.accuracy,
    images: (a, b) => rows[b].dataset.images - rows[a].dataset.images,
  };
  select.addEventListener("change", () => {
    const order = rows.map((_, index) => index).sort(orders[select.value]);
    lines.forEach((line, index) => line.append(...order.map((column) => cells[index][column + 1])));
    table.tBodies[0].append(...order.map((row) => rows[row]));
  });
}
