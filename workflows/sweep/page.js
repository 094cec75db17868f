"use strict";
// Points at one trial everywhere on the page; without this script the page says the same.
for (const mark of document.querySelectorAll("[data-trial]")) {
  const same = document.querySelectorAll(`[data-trial="${CSS.escape(mark.dataset.trial)}"]`);
  const point = (is) => {
    document.body.classList.toggle("pointing", is);
    for (const one of same) one.classList.toggle("pointed", is);
  };
  mark.addEventListener("pointerenter", () => point(true));
  mark.addEventListener("pointerleave", () => point(false));
}
