// Tables that can be sorted by a click or a key on a column's name, and filtered by words. Without it they are plain.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  const text = (row, i) => row.cells[i].textContent.trim();
  const empty = (value) => value === "" || value === "\u2013";
  const number = (value) => {
    const found = value.replace(/,(?=\d{3})/g, "").replace("\u2212", "-").match(/^[<>+]?\s*(-?\d*\.?\d+(?:e[-+]?\d+)?)/i);
    return found ? Number(found[1]) : NaN;
  };
  const sort = (i, up) => {
    const rows = [...body.rows];
    const known = rows.filter((row) => !empty(text(row, i)));
    const numeric = known.every((row) => !Number.isNaN(number(text(row, i))));
    const order = (a, b) => numeric ? number(text(a, i)) - number(text(b, i))
      : text(a, i).localeCompare(text(b, i), "en", { numeric: true });
    known.sort((a, b) => (up ? order(a, b) : order(b, a)));
    body.append(...known, ...rows.filter((row) => empty(text(row, i))));
    heads.forEach((head, j) => head.setAttribute("aria-sort", j !== i ? "none" : up ? "ascending" : "descending"));
  };
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(i, head.getAttribute("aria-sort") !== "ascending"));
  });
  const rows = [...body.rows];
  if (rows.length < 6) continue;
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  label.className = "filter";
  input.type = "search";
  label.append("Filter ", input, " ", count);
  input.setAttribute("aria-label", "Filter the rows of: " + table.caption.textContent);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => content.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = words.length ? shown + " of " + rows.length + " rows" : "";
  });
  table.parentElement.before(label);
}
