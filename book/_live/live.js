/* The page "One net, live": a picture, what the net says of it, and switches for the shortcut and F of every block. */
"use strict";

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

/* A bar, a line across it for the whole net, and words: the element, and a function that sets the three. */
function bar() {
  const length = make("i"), whole = make("b"), words = make("span");
  return [make("div", { className: "live-bar" }, make("div", {}, length, whole), words), (share, ofWhole, told) => {
    length.style.width = `${100 * share}%`;
    whole.style.left = `${100 * ofWhole}%`;
    words.replaceChildren(told);
  }];
}

function start(place, told) {
  const net = layersOf(told), blocks = [...Array((net.layers.length - 2) / 2).keys()], out = new Set(), switches = [];
  const classes = told.classes.map(bar), responses = net.layers.slice(1).map(bar);
  const canvas = make("canvas", { className: "live-picture", role: "img" });
  const said = make("p", { className: "live-said", ariaLive: "polite" });
  const rounded = (percent) => `${percent.toFixed(1)} %`;
  let pixels, whole;

  function without() { // what is taken out, in words
    if (out.size === blocks.length && blocks.every((block) => out.has(`x${block}`))) return "all shortcuts";
    return [...out].map((name) => `${name[0] === "x" ? "the shortcut" : "F"} of block ${+name.slice(1) + 1}`).join(" and ");
  }

  function measured() { // the test error of the net as it is now, where live.py has measured it
    if (without() === "all shortcuts") return told.error.plain;
    const [name] = out;
    return out.size > 1 ? null : name ? told.error[name[0]][name.slice(1)] : told.error.whole;
  }

  function draw() {
    const now = compute(net, pixels, out), error = measured();
    whole = out.size ? whole ?? compute(net, pixels, new Set()) : now;
    const best = now.probabilities.indexOf(Math.max(...now.probabilities));
    const most = Math.max(...now.responses, ...whole.responses);
    const shares = now.probabilities.map((share) => rounded(100 * share));
    classes.forEach(([element, set], i) => {
      element.closest("tr").className = i === best ? "live-best" : "";
      set(now.probabilities[i], whole.probabilities[i], shares[i]);
    });
    responses.forEach(([, set], i) => {
      set((now.responses[i] ?? 0) / most, whole.responses[i] / most, now.responses[i]?.toFixed(2) ?? "out");
    });
    said.replaceChildren(make("b", {}, `${told.classes[best]}, ${shares[best]}`),
      `, says ${out.size ? `the net without ${without()}` : "the whole net"}. `,
      error === null ? "Its test error was not measured." : `Its test error is ${rounded(error)}.`);
  }

  function take(image, name) {
    pixels = reduced(image, told.size);
    whole = undefined;
    show(pixels, canvas);
    canvas.ariaLabel = `What the net sees of ${name}: ${told.size} by ${told.size} pixels`;
    draw();
  }

  async function read(file) {
    const image = file && await createImageBitmap(file).catch(() => null);
    if (image) take(image, file.name);
    else if (file) said.replaceChildren(`${file.name} is no picture that this browser can read.`);
  }

  function set(...names) { // take these out, and put all else in
    out.clear();
    names.forEach((name) => out.add(name));
    switches.forEach((input) => { input.checked = !out.has(input.name); });
    draw();
  }

  function part(kind, block) { // a switch, with the test error of the net without it
    const error = rounded(told.error[kind][block]), name = `${kind}${block}`;
    const input = make("input", { type: "checkbox", checked: true, name });
    input.ariaLabel = `${kind === "x" ? "Shortcut" : "F"} of block ${block + 1}; without it the test error is ${error}`;
    input.onchange = () => set(...switches.filter((one) => !one.checked).map((one) => one.name));
    switches.push(input);
    return make("td", {}, make("label", {}, input, error));
  }

  const button = (words, onclick, ...what) => make("button", { type: "button", onclick }, ...what, words);
  const row = (name, ...cells) => make("tr", {}, make("th", { scope: "row" }, ...name), ...cells);
  const cell = (...bars) => make("td", {}, ...bars.map(([element]) => element));
  const samples = Object.entries(PAINTED).map(([name, paths]) => {
    const image = painted(paths), small = make("canvas");
    show(reduced(image, told.size), small);
    return button(name, () => take(image, name), small);
  });
  const file = make("input", { type: "file", accept: "image/*", onchange: () => read(file.files[0]) });
  const rows = blocks.map((block) => {
    const { outputs, stride } = net.layers[1 + 2 * block];
    const name = [`block ${block + 1}`, make("small", {}, `${outputs} filters${stride > 1 ? ", stride 2" : ""}`)];
    return row(name, part("x", block), part("F", block), cell(...responses.slice(1 + 2 * block, 3 + 2 * block)));
  });
  const head = ["block", "shortcut", "F", "responses"].map((name) => make("th", { scope: "col" }, name));
  place.append(
    make("div", { className: "live-top" },
      make("div", {}, canvas, make("div", { className: "live-samples" }, ...samples),
        make("label", { className: "live-file" }, "or choose a picture, or drop one here ", file)),
      make("table", {}, make("caption", {}, "Probabilities"),
        make("tbody", {}, ...told.classes.map((name, i) => row([name], cell(classes[i])))))),
    said,
    make("div", { className: "live-samples" },
      button("Take all shortcuts out", () => set(...blocks.map((block) => `x${block}`))), button("Put all in", () => set())),
    make("table", { className: "live-net" },
      make("caption", {}, "Clear a box to take that part out. Beside the box: the test error of the net without it."),
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, row(["first layer"], make("td"), make("td"), cell(responses[0])), ...rows)));
  place.addEventListener("dragover", (event) => event.preventDefault());
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    read(event.dataTransfer.files[0]);
  });
  samples[0].click();
}

start(document.querySelector("#live"), NET);
