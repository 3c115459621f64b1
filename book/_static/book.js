"use strict";

// A formula in a sentence cannot break; where it is wider than the page (on a phone), it scrolls in its own box.
function boxWideFormulas() {
  for (const formula of document.querySelectorAll(".bd-article span.math")) {
    formula.classList.remove("too-wide");
    const block = formula.closest("p, li, dd, td, figcaption, h1, h2, h3");
    const drawn = formula.querySelector("mjx-container");
    if (block && drawn && drawn.getBoundingClientRect().width > block.clientWidth) {
      formula.classList.add("too-wide");
    }
  }
}

// Browsers download a notebook from a server, but only show it as text where the page was opened from the disk;
// there, and with the button in the page's head, the copy that the link carries is handed out.
function offerNotebook() {
  const link = document.querySelector("a.download-notebook");
  if (!link) return;
  const button = document.querySelector("a.btn-download-source-button");
  button?.removeAttribute("target");
  button?.setAttribute("download", link.download);
  if (location.protocol !== "file:") return;
  const bytes = Uint8Array.from(atob(link.dataset.notebook), (character) => character.charCodeAt(0));
  const copy = URL.createObjectURL(new Blob([bytes], { type: "application/x-ipynb+json" }));
  for (const each of [link, button]) each?.setAttribute("href", copy);
}

window.addEventListener("load", () => {
  offerNotebook();
  // MathJax starts after the page; pages without formulas never load it
  window.MathJax?.startup?.promise?.then(() => {
    boxWideFormulas();
    window.addEventListener("resize", boxWideFormulas);
  });
});
