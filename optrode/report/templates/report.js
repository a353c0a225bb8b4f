"use strict";
// Draws each chart from the JSON beside it; a chart that fails says so in its place and leaves the others alone.
(function () {
  function fitted(spec, width) {
    const copy = structuredClone(spec);
    copy.config.legend = { ...copy.config.legend, columns: Math.max(1, Math.floor(width / 190)) };
    if (copy.facet) {
      const gap = copy.spacing || 20;
      const { panels = 3, panelAxis: axis = 0 } = copy.usermeta || {}; // how many, and what the axis of each takes
      const room = width - (axis ? 24 : 72); // what the strength axis and its title take
      copy.columns = Math.max(1, Math.min(3, panels, Math.floor((room + gap) / (250 + axis))));
      copy.spec.width = Math.max(180, Math.floor((room - gap * (copy.columns - 1)) / copy.columns) - axis);
    }
    return copy;
  }

  async function draw(figure) {
    const place = figure.querySelector(".chart");
    const spec = JSON.parse(figure.querySelector("script").textContent);
    let drawn = 0;
    let result = null;
    async function redraw() {
      const width = place.clientWidth;
      if (Math.abs(width - drawn) < 8) return;
      drawn = width;
      if (result) result.finalize();
      result = await vegaEmbed(place, fitted(spec, width), {
        ast: true, renderer: "svg", actions: false, defaultStyle: false,
        tooltip: { theme: "optrode", disableDefaultStyle: true },
      });
    }
    try {
      await redraw();
    } catch (error) {
      place.textContent = "This chart could not be drawn: " + error.message;
      return;
    }
    let timer = 0;
    new ResizeObserver(function () {
      clearTimeout(timer);
      timer = setTimeout(redraw, 150);
    }).observe(place);
    const button = figure.querySelector("button.save");
    button.hidden = false;
    button.addEventListener("click", async function () {
      const svg = await result.view.toSVG();
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
      link.download = figure.dataset.chart + ".svg";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  document.querySelectorAll("figure[data-chart]").forEach(draw);
  // Paper cannot unfold: what is folded on the screen is printed whole.
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
})();
