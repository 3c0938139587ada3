// A page that is whole without: values under the pointer, details that open by a link.
(() => {
  "use strict";
  const reveal = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();
  // The same link once more is no change.
  document.addEventListener("click", (event) => {
    if (event.target.closest?.('a[href^="#"]')) setTimeout(reveal);
  });

  for (const box of document.querySelectorAll(".details")) {
    const line = document.createElement("div");
    line.className = "tools";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Open all";
    button.addEventListener("click", () => {
      const open = button.textContent === "Open all";
      for (const each of box.querySelectorAll("details.layer")) each.open = open;
      button.textContent = open ? "Close all" : "Open all";
    });
    line.append(button);
    box.querySelector("h3").after(line);
  }

  const hover = (svg) => {
    const figure = svg.closest("figure");
    const [kind, ...numbers] = svg.dataset.x.split(" ");
    const [low, high, start, end] = numbers.map(Number);
    const scale = kind === "log" ? Math.log : (x) => x;
    const across = (x) =>
      start + ((end - start) * (scale(x) - scale(low))) / (scale(high) - scale(low));
    const table = figure.querySelector("table.data");
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows].map((row) =>
      [...row.cells].map((cell) => cell.textContent));
    const places = rows.map((row) => across(Number.parseFloat(row[0])));
    const line = document.createElementNS(svg.namespaceURI, "line");
    line.setAttribute("class", "axis");
    const [, top, , height] = svg.getAttribute("viewBox").split(" ").map(Number);
    line.setAttribute("y1", top + 10);
    line.setAttribute("y2", top + height - 40);
    line.style.display = "none";
    svg.append(line);
    const box = document.createElement("div");
    box.className = "hover";
    box.hidden = true;
    figure.append(box);
    svg.addEventListener("pointermove", (event) => {
      const frame = svg.getBoundingClientRect();
      const width = svg.viewBox.baseVal.width;
      const at = ((event.clientX - frame.left) / frame.width) * width;
      let best = 0;
      places.forEach((place, i) => {
        if (Math.abs(place - at) < Math.abs(places[best] - at)) best = i;
      });
      line.setAttribute("x1", places[best]);
      line.setAttribute("x2", places[best]);
      line.style.display = "";
      box.replaceChildren();
      rows[best].forEach((text, i) => {
        if (!text) return;
        const part = document.createElement("div");
        part.textContent = `${heads[i]}: ${text}`;
        box.append(part);
      });
      box.hidden = false;
      const outer = figure.getBoundingClientRect();
      const x = (places[best] / width) * frame.width;
      box.style.left = x < outer.width / 2 ? `${x + 12}px` : "";
      box.style.right = x < outer.width / 2 ? "" : `${outer.width - x + 12}px`;
      box.style.top = `${frame.top - outer.top + 16}px`;
    });
    svg.addEventListener("pointerleave", () => {
      box.hidden = true;
      line.style.display = "none";
    });
  };
  // Where the pointer comes first, as a page may have hundreds.
  document.addEventListener("pointerover", (event) => {
    const svg = event.target.closest?.("svg[data-x]");
    if (svg && !svg.dataset.live) {
      svg.dataset.live = "yes";
      hover(svg);
    }
  });
})();
