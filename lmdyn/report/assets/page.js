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

  const now = () => (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => draw(now()));
  window.addEventListener("beforeprint", () => draw("light"));
  window.addEventListener("afterprint", () => draw(now()));
  draw(now());
})();
