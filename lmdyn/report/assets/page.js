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

  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const table of document.querySelectorAll("details.short:not([open])")) {
      table.open = true;
      opened.push(table);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const table of opened.splice(0)) table.open = false;
  });

  dark.addEventListener("change", () => draw(dark.matches ? "dark" : "light"));
  prepare();
  draw(dark.matches ? "dark" : "light").then(() => {
    // Figures have their heights now: what the address points at has moved.
    if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  });
})();
