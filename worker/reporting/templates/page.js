"use strict";
// Filters the gallery, lets arrow keys walk through it, and names the scan under the pointer on the map. Without it,
// the page shows the same.
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

document.querySelector(".gallery").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const shown = cards.filter((card) => !card.hidden);
  const next = shown[shown.indexOf(document.activeElement) + step];
  if (step && next) {
    event.preventDefault();
    next.focus();
  }
});

const map = document.querySelector(".map");
if (map) {
  map.addEventListener("pointerover", (event) => {
    const point = event.target.closest("circle");
    find("map-scan").textContent = point ? point.querySelector("title").textContent : "";
  });
}
