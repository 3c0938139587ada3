// Tables that are there already get heads that sort and, where they are long, a filter.
(() => {
  "use strict";
  const keyOf = (cell) => {
    const text = cell.dataset.value ?? cell.textContent;
    const number = Number.parseFloat(text);
    return cell.classList.contains("number") ? number : text;
  };
  const missing = (key) => key === "" || key === "-" || Number.isNaN(key);
  const compare = (a, b) =>
    typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });

  const sort = (table, head) => {
    const index = head.cellIndex;
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [keyOf(row.cells[index]), row]);
    rows.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a, b)));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.append(...rows.map(([, row]) => row));
  };

  const filter = (table) => {
    const line = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("span");
    line.className = "filter";
    count.setAttribute("role", "status");
    input.type = "search";
    label.append("Filter ", input);
    line.append(label, count);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = [...table.tBodies[0].rows];
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    });
    table.closest(".scrolls").before(line);
  };

  for (const table of document.querySelectorAll(".keras-spectral .rows table:not([data-live])")) {
    table.dataset.live = "";
    if (table.tBodies[0].rows.length < 2) continue;
    for (const head of table.tHead.rows[0].cells) {
      if (head.classList.contains("spectrum")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head));
      head.append(button);
    }
    if (table.tBodies[0].rows.length > 8) filter(table);
  }
})();
