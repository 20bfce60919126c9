"use strict";
// Filters the gallery, lets arrow keys walk through it and through strips of slices, and names the slice, or the scan on
// the map, that is pointed at. Without it, the page shows the same.
const find = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll(".gallery > li")];
const fields = { label: find("filter-label"), error: find("filter-error"), name: find("filter-name") };

function filter() {
  const name = fields.name.value.toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const matches =
      (!fields.label.value || card.dataset.label === fields.label.value) &&
      (!fields.error.value || card.dataset.error === fields.error.value) &&
      card.querySelector(".name").textContent.toLowerCase().includes(name);
    card.hidden = !matches;
    shown += matches;
  }
  find("filter-count").textContent = `${shown} of ${cards.length} shown`;
  find("filter-none").hidden = shown > 0;
}

find("filters").hidden = cards.length === 0;
find("filters").addEventListener("input", filter);
filter();

function walk(event, items) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const next = items[items.indexOf(document.activeElement) + step];
  if (step && next) {
    event.preventDefault();
    next.focus();
  }
}

document.querySelector(".gallery").addEventListener("keydown", (event) => {
  walk(event, cards.filter((card) => !card.hidden));
});

for (const strip of document.querySelectorAll(".strip")) {
  const named = strip.parentElement.querySelector(".named");
  const highest = named.textContent;
  const name = (event) => (named.textContent = event.target.closest(".strip > li")?.title || highest);
  strip.addEventListener("keydown", (event) => walk(event, [...strip.children]));
  for (const kind of ["pointerover", "focusin"]) strip.addEventListener(kind, name);
  for (const kind of ["pointerleave", "focusout"]) strip.addEventListener(kind, () => (named.textContent = highest));
}

const map = document.querySelector(".map");
if (map) {
  map.addEventListener("pointerover", (event) => {
    const point = event.target.closest("circle");
    find("map-scan").textContent = point ? point.querySelector("title").textContent : "";
  });
}
