"use strict";
(() => {
  const { figures, configs } = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();

  async function draw(mode) {
    await Promise.all(Array.from(document.querySelectorAll("[data-figure]"), async (place) => {
      const name = place.dataset.figure;
      const made = await window.vegaEmbed(place, structuredClone(figures[name]), {
        mode: "vega-lite",
        renderer: "svg",
        actions: false,
        config: configs[name][mode],
        tooltip: { theme: mode, offsetX: 14, offsetY: 14 },
      });
      if (views.has(name)) views.get(name).finalize();
      views.set(name, made);
    }));
    document.documentElement.dataset.drawn = mode;
  }

  // On paper a figure is its SVG, which is light and as wide as paper: drawing again would not be done in time.
  function prepare() {
    for (const link of document.querySelectorAll(".links a[download$='.svg']")) {
      const image = new Image();
      image.className = "printed";
      image.alt = link.download;
      image.src = link.href;
      const figure = link.closest("section").querySelector("figure");
      figure.insertBefore(image, figure.querySelector("figcaption"));
    }
  }

  // A click on a column's head sorts the lines of each group: up, down, then as they were.
  function sortable(table) {
    const heads = [...table.querySelectorAll("thead th:not(.interval)")];
    const groups = [...table.tBodies].map((body) => [body, [...body.rows].slice(1)]);
    const key = (row, head) => {
      const cell = row.cells[head.cellIndex];
      if (cell.dataset.value === undefined) return cell.querySelector("summary").textContent;
      return cell.dataset.value === "" ? -Infinity : Number(cell.dataset.value);
    };
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" }[head.ariaSort] ?? "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next !== "none") head.ariaSort = next;
        const sign = next === "descending" ? -1 : 1;
        for (const [body, rows] of groups) {
          const order = next === "none" ? rows : [...rows].sort((a, b) => {
            const [x, y] = [key(a, head), key(b, head)];
            return sign * (x < y ? -1 : x > y ? 1 : 0);
          });
          body.append(...order);
        }
      });
    }
  }

  // The contents list marks the part that is being read.
  function follow() {
    const items = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
    const parts = [...items.keys()].map((name) => document.getElementById(name));
    let last;
    const mark = () => {
      const line = innerHeight / 3;
      const read = parts.filter((part) => part.getBoundingClientRect().top <= line).pop() ?? parts[0];
      if (!read || read === last) return;
      if (last) items.get(last.id).removeAttribute("aria-current");
      const item = items.get(read.id);
      item.setAttribute("aria-current", "true");
      const list = document.querySelector("nav");
      list.scrollLeft += item.getBoundingClientRect().left - list.getBoundingClientRect().left - 20;
      last = read;
    };
    addEventListener("scroll", mark, { passive: true });
    mark();
  }

  // A link to something that is folded away opens it.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  }

  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const table of document.querySelectorAll("details.short:not([open]), details.claims:not([open])")) {
      table.open = true;
      opened.push(table);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const table of opened.splice(0)) table.open = false;
  });

  dark.addEventListener("change", () => draw(dark.matches ? "dark" : "light"));
  window.addEventListener("hashchange", reveal);
  prepare();
  document.querySelectorAll("table.sortable").forEach(sortable);
  follow();
  draw(dark.matches ? "dark" : "light").then(() => {
    // Figures have their heights now: what the address points at has moved.
    if (location.hash) reveal();
  });
})();
