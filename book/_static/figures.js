/* Figures on demand: the data behind a drawing as a chart (uPlot), and the layers of an architecture. Nothing is fetched. */
(() => {
  "use strict";
  const here = document.currentScript.src, beside = (name) => new URL(`vendored/uplot/${name}`, here).href;
  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const isDark = () => getComputedStyle(document.documentElement).colorScheme.includes("dark");
  const number = (v) => (v == null ? "no value" : Math.abs(v) < 1e-3 && v ? v.toExponential(1) : String(+v.toPrecision(3)));

  function chart(panel, chosen, box) {  // returns the function that draws it: widths are known once all panels stand there
    const lines = panel.lines.filter((l) => chosen.nets.has(l.net) && (!l.seed || chosen.seeds));
    const values = make("p", { className: "values", ariaLive: "polite" }, "Point at the chart, or focus it and use the arrow keys.");
    const place = make("div", { tabIndex: 0, role: "application", ariaLabel: `${panel.y} over ${panel.x}; arrow keys read values` });
    box.append(make("div", {}, make("h4", {}, panel.title || panel.y), place, values));
    if (!lines.length) {
      values.replaceChildren("No net is chosen.");
      return () => {};
    }
    const drawn = (v) => (v == null || (chosen.log && v <= 0) ? null : v);
    const data = uPlot.join(lines.map((l) => [panel.xs[l.x], l.y.map(drawn)]));
    const ink = getComputedStyle(box).color;
    const axis = (label) => ({ label, stroke: ink, grid: { stroke: "rgba(128,128,128,.3)" }, ticks: { stroke: "rgba(128,128,128,.5)" } });
    const say = (u) => {
      const i = u.cursor.idx;
      if (i == null) return;
      const shown = lines.map((l, k) => [l, data[k + 1][i]]).filter(([l, v]) => !l.seed && v != null);
      values.replaceChildren(`${panel.x} ${number(data[0][i])}: ` + shown.map(([l, v]) => `${l.net} ${number(v)}`).join(", "));
    };
    const reach = (_, low, high) => [low < 0 ? low : 0, high * 1.04 || 1];  // a linear scale begins at zero, as in the drawings
    return () => keys(place, new uPlot({
      width: Math.max(200, place.clientWidth), height: 270,
      scales: { x: { time: false, distr: panel.logx ? 3 : 1 }, y: chosen.log ? { distr: 3 } : { range: reach } },
      axes: [{ ...axis(panel.x), size: 40, labelSize: 20 }, { ...axis(panel.y), size: 52, labelSize: 20 }],
      series: [{}, ...lines.map((l) => ({
        label: l.net, stroke: isDark() ? l.dark : l.colour, width: l.seed ? 0.7 : 2, alpha: l.seed ? 0.6 : 1,
        dash: l.dash ? [7, 4] : undefined, spanGaps: true, points: { show: false },
      }))],
      cursor: { y: false, drag: { x: true, y: false } },
      hooks: { setCursor: [say] },
    }, data, place), data);
  }

  function keys(place, u, data) {
    place.addEventListener("keydown", (event) => {
      const last = data[0].length - 1, now = u.cursor.idx ?? 0, far = Math.max(1, Math.round(last / 40));
      const to = { ArrowLeft: now - far, ArrowRight: now + far, Home: 0, End: last }[event.key];
      if (to == null) return;
      event.preventDefault();
      const i = Math.min(last, Math.max(0, to));
      u.setCursor({ left: u.valToPos(data[0][i], "x"), top: 20 });
    });
  }

  function explore(plot, panels) {
    const nets = [...new Map(panels.flatMap((p) => p.lines).map((l) => [l.net, l])).values()];
    const chosen = { nets: new Set(nets.map((l) => l.net)), seeds: false, log: panels.some((p) => p.log) };
    const box = make("div", { className: "plot-chart" });
    const draw = () => { box.replaceChildren(); panels.map((panel) => chart(panel, chosen, box)).forEach((begin) => begin()); };
    const tick = (checked, change, ...name) => {
      const input = make("input", { type: "checkbox", checked, onchange: () => { change(input.checked); draw(); } });
      return make("label", {}, input, ...name);
    };
    const bar = make("div", { className: "plot-bar", role: "group", ariaLabel: "What the chart shows" }, ...nets.map((l) => {
      const swatch = make("i", { className: l.dash ? "dash" : "" });
      swatch.style.borderColor = `light-dark(${l.colour}, ${l.dark})`;
      return tick(true, (on) => chosen.nets[on ? "add" : "delete"](l.net), swatch, l.net);
    }));
    if (panels.some((p) => p.lines.some((l) => l.seed))) bar.append(tick(false, (on) => { chosen.seeds = on; }, "single runs"));
    bar.append(tick(chosen.log, (on) => { chosen.log = on; }, "logarithmic"));
    plot.append(bar, box);
    draw();
    new MutationObserver(draw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    let wide = box.clientWidth;
    new ResizeObserver(() => { if (box.clientWidth && box.clientWidth !== wide) { wide = box.clientWidth; draw(); } }).observe(box);
    return [bar, box];
  }

  let library = null; // uPlot, loaded when the first chart is asked for
  const loaded = () => library ??= new Promise((done) => document.head.append(
    make("link", { rel: "stylesheet", href: beside("uPlot.min.css") }),
    make("script", { src: beside("uPlot.iife.min.js"), onload: done })));

  function offer(plot, panels) {
    let made = null;
    const button = make("button", { type: "button", ariaExpanded: "false" }, "Explore the values");
    button.onclick = async () => {
      await loaded();
      const open = plot.classList.toggle("plot-open");
      made ??= explore(plot, panels);
      made.forEach((part) => { part.hidden = !open; part.style.display = open ? "" : "none"; });
      button.ariaExpanded = String(open);
      button.replaceChildren(open ? "Back to the drawing" : "Explore the values");
    };
    plot.prepend(make("div", { className: "plot-bar" }, button));
  }

  function choose(plot, layers) {
    const told = make("p", { className: "plot-layer", ariaLive: "polite" }, "Choose a layer: its output, its parameters, its multiply-adds.");
    plot.append(told);
    layers.forEach((layer) => layer.ownerSVGElement.setAttribute("role", "group"));
    const pick = (layer) => {
      layers.forEach((one) => { one.removeAttribute("aria-current"); one.setAttribute("tabindex", "-1"); });
      layer.setAttribute("aria-current", "true");
      layer.setAttribute("tabindex", "0");
      told.replaceChildren(layer.querySelector("title").textContent);
    };
    layers.forEach((layer, i) => {
      layer.setAttribute("tabindex", i ? "-1" : "0");
      layer.setAttribute("role", "button");
      layer.setAttribute("aria-label", layer.querySelector("title").textContent);
      layer.addEventListener("click", () => pick(layer));
      layer.addEventListener("focus", () => pick(layer));
      layer.addEventListener("keydown", (event) => {
        const to = { ArrowDown: i + 1, ArrowRight: i + 1, ArrowUp: i - 1, ArrowLeft: i - 1, Home: 0, End: layers.length - 1 }[event.key];
        if (layers[to]) { event.preventDefault(); layers[to].focus(); }
      });
    });
  }

  function start() {
    document.querySelectorAll(".drawn").forEach((plot) => {
      const data = plot.querySelector('script[type="application/json"]');
      if (data) offer(plot, JSON.parse(data.textContent));
      const layers = [...plot.querySelectorAll(".layer")].filter((layer) => layer.checkVisibility());
      if (layers.length) choose(plot, layers);
    });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
