/* What the book's pages do by themselves. No network, no library; an equation that the build has not set, KaTeX sets here. */
"use strict";

function mathematics() {
  if (!window.katex) return;
  for (const place of document.querySelectorAll(".math")) {
    const block = place.tagName === "DIV", text = block ? place.lastElementChild : place;
    if (text.querySelector(".katex")) continue;
    katex.render(text.textContent, text, { displayMode: block, throwOnError: false });
  }
}

function copying() {
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const text = button.dataset.copy;
      try { await navigator.clipboard.writeText(text); } catch { // a page from a folder may not use the clipboard
        const field = document.body.appendChild(Object.assign(document.createElement("textarea"), { value: text }));
        field.select(); document.execCommand("copy"); field.remove();
      }
      button.textContent = "Copied"; setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }
}

/* What scrolls can be scrolled by keyboard. */
function scrolling() {
  for (const part of document.querySelectorAll("article :is(pre, .text_html, .output, .math, .pst-scrollable-table-container, figure)"))
    if (part.scrollWidth > part.clientWidth + 1 && !part.hasAttribute("tabindex")) part.tabIndex = 0;
}

/* One button opens and closes all collapsed code of a page. */
function allCode() {
  const cells = [...document.querySelectorAll("details.hide")], title = document.querySelector("article h1");
  if (!cells.length || !title) return;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "copy show-code", textContent: "Show all code" });
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") === "false";
    for (const cell of cells) cell.open = open;
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Hide code" : "Show all code";
  });
  title.before(button);
}

/* What stands behind a link to a claim, a reference or a term, on hover and on keyboard focus; Escape closes. */
function previews() {
  const known = window.PREVIEWS || {}, top = document.documentElement.dataset.content_root || "./";
  const base = new URL(top, location.href).href;
  let shown = null;
  const close = () => { shown?.remove(); shown = null; };
  const open = (link) => {
    close();
    const text = known[link.href.replace(base, "")];
    if (!text) return;
    shown = Object.assign(document.createElement("div"), { className: "preview", id: "preview", textContent: text });
    shown.setAttribute("role", "tooltip");
    document.body.append(shown);
    link.setAttribute("aria-describedby", "preview");
    const at = link.getBoundingClientRect(), box = shown.getBoundingClientRect();
    const left = Math.min(at.left, document.documentElement.clientWidth - box.width - 8);
    const above = at.bottom + box.height + 8 > innerHeight && at.top > box.height + 8;
    shown.style.left = `${Math.max(8, left) + scrollX}px`;
    shown.style.top = `${(above ? at.top - box.height - 6 : at.bottom + 6) + scrollY}px`;
  };
  for (const link of document.querySelectorAll("article a[href*='#']")) {
    link.addEventListener("mouseenter", () => open(link));
    link.addEventListener("focus", () => open(link));
    link.addEventListener("mouseleave", close);
    link.addEventListener("blur", close);
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());
}

/* The summaries of search results are fetched, which a browser forbids in a folder: there texts.js has them. */
if (location.protocol === "file:") {
  window.fetch = async (address) => {
    const name = new URL(address, location.href).href.replace(new URL("./", location.href).href, "").split(/[?#]/)[0];
    return new Response(`<div role="main">${(window.TEXTS || {})[name] || ""}</div>`);
  };
}

/* A search for a claim's number finds the claim first. */
function searchClaims() {
  const list = document.querySelector("#search-results"), asked = new URLSearchParams(location.search).get("q") || "";
  const claim = /^\s*c(\d{1,2})\s*$/i.exec(asked), text = claim && (window.PREVIEWS || {})[`claims.html#c${claim[1]}`];
  if (!list || !text) return;
  const found = document.createElement("p"), link = document.createElement("a");
  link.href = `claims.html#c${claim[1]}`; link.textContent = text.split("\n")[0];
  found.className = "claim-found"; found.append("The claim: ", link);
  list.before(found);
}

document.addEventListener("DOMContentLoaded", () => { mathematics(); copying(); allCode(); previews(); searchClaims(); scrolling(); });
