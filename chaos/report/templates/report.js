"use strict";
// Draws the charts of a scenario when it is opened, so that a file with sixty of them opens at once; the rest is plain HTML.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  // Packed, because the timelines of a long campaign would be tens of megabytes.
  async function unpack(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }

  const charts = read("charts");
  const index = read("index");
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, logLevel: 1, tooltip: { theme: "custom" } };
  const drawn = new Map(); // figure -> { width, result, span, focus }

  const rowsOf = ({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map((column, place) => [column, row[place]])));

  const pen = document.createElement("canvas").getContext("2d");

  // Points that an axis needs for its labels.
  function roomFor(labels, most) {
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    return 12 + Math.min(most, Math.max(...labels.map((label) => pen.measureText(label).width)));
  }

  function timeline(name, data, width) {
    const chart = structuredClone(charts[name]);
    chart.datasets = Object.fromEntries(Object.entries(data.tables).map(([table, rows]) => [table, rowsOf(rows)]));
    chart.params.push({ name: "lanes", value: chart.datasets.lanes.map((lane) => lane.label) });
    const room = Math.max(48, roomFor(chart.datasets.lanes.map((lane) => lane.label), 160));
    for (const { encoding } of chart.vconcat[1].layer) if (encoding.y?.axis) encoding.y.axis.title = data.measure;
    if (!chart.datasets.accesses.length) chart.vconcat.pop(); // Nobody went to the store.
    for (const part of chart.vconcat) part.width = Math.max(120, width - room - 10);
    return chart;
  }

  function overview(name, width) {
    const chart = structuredClone(charts[name]);
    chart.datasets = { [name]: index[name] };
    const phases = new Set(index[name].map((row) => row.phase)).size;
    const written = name === "next" ? roomFor(index[name].map((row) => row.max_text), 80) : 0; // Right of the panel.
    const left = width - roomFor(index[name].map((row) => row.name), 150) - written - 12;
    const panel = chart.spec ? Math.max(50, (left - 14 * (phases - 1)) / phases) : Math.max(120, left);
    (chart.spec ?? chart).width = panel;
    for (const param of chart.params ?? []) if (param.name === "room") param.value = panel;
    return chart;
  }

  async function draw(figure) {
    const width = figure.clientWidth;
    const known = drawn.get(figure);
    if (!width || (known && known.width === width)) return;
    drawn.set(figure, { width });
    const name = figure.dataset.chart;
    const data = figure.dataset.table ? await unpack(figure.dataset.table) : null;
    if (known && known.result) known.result.finalize();
    const made = (room) => vegaEmbed(figure.firstElementChild, data ? timeline(name, data, room) : overview(name, room), options);
    let result = await made(width);
    // What an axis needs for its numbers is known once it is drawn: nothing may reach past the edge, where it would be cut.
    const over = figure.querySelector("svg").getBoundingClientRect().width - width;
    if (over > 0) {
      result.finalize();
      result = await made(width - Math.ceil(over));
    }
    drawn.set(figure, { width, result, span: data && data.span, focus: data && data.focus });
  }

  // One after the other, so that the page answers in between.
  async function drawAll(within, which) {
    for (const figure of within.querySelectorAll(which)) await draw(figure);
  }

  addEventListener("load", () => drawAll(document, "section > figure.chart"));
  document.addEventListener("toggle", ({ target }) => target.open && drawAll(target, "figure.chart"), true);

  let resizing = 0;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => [...drawn.keys()].forEach(draw), 200); // One that is hidden has no width, and waits.
  });

  function zoom(figure, how) {
    const { result, span, focus } = drawn.get(figure) ?? {};
    if (!result) return;
    const [from, until] = result.view.signal("zoom_at") ?? span;
    const middle = (from + until) / 2;
    const half = (until - from) / 2;
    const next = {
      in: [middle - half / 2, middle + half / 2],
      out: [middle - half * 2, middle + half * 2],
      left: [from - half / 2, until - half / 2],
      right: [from + half / 2, until + half / 2],
      all: span,
      focus,
    }[how];
    result.view.signal("zoom_at", next).runAsync();
  }

  function show(which) {
    document.querySelectorAll(".filter button").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.show === which));
    });
    document.querySelectorAll("details.scenario").forEach((scenario) => {
      const { ok, overlap } = scenario.dataset;
      scenario.hidden = (which === "wrong" && ok === "1") || (which === "overlap" && overlap === "0");
    });
  }

  function open() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.matches("details.scenario")) {
      show("all");
      target.open = true;
      target.scrollIntoView();
    }
  }

  document.addEventListener("click", ({ target }) => {
    if (target.matches("[data-zoom]")) zoom(target.closest(".body").querySelector("figure.chart"), target.dataset.zoom);
    if (target.matches("[data-show]")) show(target.dataset.show);
    if (target.matches(".copy")) {
      navigator.clipboard?.writeText(target.previousElementSibling.textContent);
      target.textContent = "copied";
    }
  });
  if (innerWidth > 900) document.querySelector(".howto").open = true;
  addEventListener("hashchange", open);
  open();
})();
