/* Sets the book's equations, so that no reader's browser has to: `node book/katex.cjs` after a `make book` with new ones, and
   `make book` again. Reads _build/equations.json, which the build leaves; writes _vendor/katex/set.json. */
"use strict";
const { readFileSync, writeFileSync } = require("fs");
const katex = require("./_vendor/katex/katex.min.js");

const made = {};
for (const [kind, equations] of Object.entries(JSON.parse(readFileSync(`${__dirname}/_build/equations.json`))))
  made[kind] = Object.fromEntries(equations.map((tex) => [tex, katex.renderToString(tex, { displayMode: kind === "display" })]));
writeFileSync(`${__dirname}/_vendor/katex/set.json`, JSON.stringify(made, null, 1) + "\n");
