"use strict";
// Draws each chart of the page with uPlot, and again whenever a switch, the width or the colours
// of the screen change. Lines that are switched off are not in the drawing.

(() => {
  const HEIGHT = 320;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const digits = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
  };

  // Steps of an axis over whole numbers, between which there is nothing.
  const whole = (x) => {
    if (!x.every(Number.isInteger)) return undefined;
    return Array.from({ length: 27 }, (_, k) => [1, 2, 5][k % 3] * 10 ** Math.floor(k / 3));
  };

  const places = (view) =>
    view.x_log
      ? { values: (_, at) => at.map((place) => (place === null ? "" : digits(place))) }
      : { incrs: whole(view.x) };

  function begin(chart) {
    const data = JSON.parse(chart.querySelector("script").textContent);
    const form = chart.querySelector("form");
    const area = chart.querySelector(".plot");
    const slider = chart.querySelector("input[type=range]");
    const values = chart.querySelector(".values");
    let plot = null;
    let near = null; // the line next to the pointer

    const scaleTo = (name) => {
      form.querySelector(`input[name=scale][value=${name}]`).checked = true;
    };

    function draw() {
      const picked = new FormData(form);
      const view = data.views[Number(picked.get("view") ?? 0)];
      const lines = view.lines.filter((line) => line.tags.every((tag) => picked.has(tag)));
      const positive = (v) => (v !== null && v > 0 ? v : null);
      let columns = lines.map((line) => line.values.map(positive));
      const log =
        picked.get("scale") === "log" && columns.some((column) => column.some((v) => v !== null));
      if (!log) columns = lines.map((line) => line.values);
      // The edges of a band are two more columns, which have no line of their own.
      const shown = form.elements.band === undefined || picked.has("band");
      const banded = lines.filter((line) => shown && line.low.length > 0);
      const edges = banded.flatMap((line) => [line.high, line.low]);
      const bands = banded.map((line, k) => ({
        series: [1 + lines.length + 2 * k, 2 + lines.length + 2 * k],
        fill: `${css(`--line-${line.colour}`)}2e`,
      }));
      const ink = css("--ink");
      const axis = {
        stroke: ink,
        font: "12px system-ui, sans-serif",
        labelFont: "12px system-ui, sans-serif",
        grid: { stroke: css("--grid"), width: 1 },
        ticks: { stroke: css("--grid"), width: 1 },
      };
      const ticks = (_, places) => places.map((place) => (place === null ? "" : digits(place)));
      const options = {
        width: area.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        scales: { x: { time: false, distr: view.x_log ? 3 : 1 }, y: { distr: log ? 3 : 1 } },
        axes: [
          { ...axis, label: data.x, labelSize: 20, size: 34, ...places(view) },
          { ...axis, values: ticks, size: 62 },
        ],
        cursor: { y: false, focus: { prox: 16 } },
        focus: { alpha: 0.25 },
        series: [
          {},
          ...lines.map((line) => ({
            label: line.label,
            stroke: css(`--line-${line.colour}`),
            width: line.thin ? 1 : 2.4,
            alpha: line.thin ? 0.5 : 1,
            dash: line.dashed ? [7, 4] : undefined,
            spanGaps: true,
            points: { show: view.x.length === 1 },
            paths: view.stepped ? uPlot.paths.stepped({ align: -1 }) : undefined,
          })),
          ...edges.map(() => ({ width: 0, points: { show: false } })),
        ],
        bands,
        hooks: {
          setCursor: [(u) => tell(u, view, lines)],
          setSeries: [
            (u, place) => {
              near = place === null ? null : lines[place - 1];
              tell(u, view, lines);
            },
          ],
        },
      };
      near = null;
      if (plot !== null) plot.destroy();
      plot = new uPlot(options, [view.x, ...columns, ...edges.map((edge) => (log ? edge.map(positive) : edge))], area);
      chart.plot = plot;
      slider.max = view.x.length - 1;
      slider.value = slider.max;
      tell(plot, view, lines);
    }

    // What stands at the place of the pointer or the slider, in figures.
    function tell(u, view, lines) {
      const place = u.cursor.idx ?? Number(slider.value);
      slider.value = place;
      const shown = [];
      for (const line of lines.filter((each) => !each.thin)) {
        const family = lines.filter((each) => each.thin && each.family === line.family);
        const values = family.map((each) => each.values[place]);
        const known = [...values, line.low[place], line.high[place]].filter((v) => v != null);
        const range = known.length > 1 ? [Math.min(...known), Math.max(...known)] : [];
        shown.push([line, range.length ? ` (${range.map(digits).join(" to ")})` : ""]);
      }
      if (near !== null && near !== undefined && near.thin) shown.push([near, ""]);
      const words = shown.map(([line, range]) => `${line.label}: ${digits(line.values[place])}${range}`);
      const at = `${data.x} ${Number(view.x[place].toPrecision(7)).toLocaleString("en")}`;
      slider.setAttribute("aria-valuetext", [at, ...words].join(", "));
      values.replaceChildren(
        item(at),
        ...shown.map(([line], k) => item(words[k], line)),
      );
    }

    function item(text, line) {
      const entry = document.createElement("li");
      if (line !== undefined) {
        const swatch = document.createElement("i");
        swatch.className = `swatch line-${line.colour}${line.dashed ? " dashed" : ""}`;
        entry.append(swatch);
      }
      entry.append(text);
      return entry;
    }

    form.addEventListener("change", (event) => {
      if (event.target.name === "view") {
        scaleTo(data.views[Number(event.target.value)].log ? "log" : "linear");
      }
      draw();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    slider.addEventListener("input", () => {
      const place = Number(slider.value);
      plot.setCursor({ left: plot.valToPos(plot.data[0][place], "x"), top: 0 });
    });
    new ResizeObserver(() => {
      if (area.clientWidth !== plot.width) {
        plot.setSize({ width: area.clientWidth, height: HEIGHT });
      }
    }).observe(area);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    form.reset(); // a reloaded page may remember other switches
    draw();
  }

  document.querySelectorAll("[data-chart]").forEach(begin);
})();
