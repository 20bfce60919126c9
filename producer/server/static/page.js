"use strict";
// Puts newer parts of the page in the place of older ones, as the service sends them. Without it the page shows the
// same, as of when it was loaded.
const ids = (node) => [...node.children].map((child) => child.id);

function renew(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const keys = ids(fresh);
  const sameParts = keys.length > 0 && keys.every(Boolean) && String(keys) === String(ids(old));
  if (sameParts && old.cloneNode().isEqualNode(fresh.cloneNode())) {
    const parts = [...fresh.children];
    [...old.children].forEach((child, number) => renew(child, parts[number]));
    return;
  }
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const chosen = focused && document.activeElement.value;
  old.replaceWith(fresh);
  if (focused && document.getElementById(focused)) {
    document.getElementById(focused).focus();
    if (document.activeElement.tagName === "SELECT") document.activeElement.value = chosen;
  }
}

const url = document.querySelector("[data-live]").dataset.live;
const lost = document.getElementById("lost");
let events = null;
let again = 0;

// A browser has six connections to a service at most: a page that nobody sees holds none.
function follow() {
  clearTimeout(again);
  if (events) events.close();
  if (document.hidden) return;
  events = new EventSource(url);
  events.addEventListener("parts", (event) => {
    const fresh = new DOMParser().parseFromString(event.data, "text/html").getElementById("parts");
    renew(document.getElementById("parts"), fresh);
  });
  events.addEventListener("open", () => { lost.hidden = true; });
  events.addEventListener("error", () => {
    // A browser tries again when the connection broke, but not when the answer was an error.
    const refused = events.readyState === EventSource.CLOSED;
    if (refused) again = setTimeout(follow, 5000);
    lost.textContent = `No connection: what you see may be old.${refused ? " If this stays, load the page again." : ""}`;
    lost.hidden = false;
  });
}

document.addEventListener("visibilitychange", follow);
follow();
