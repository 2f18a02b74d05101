/**
 * Keeps a page up to date. The server sends each part of the page again that has changed, as HTML with the part's id.
 * What is the same in it stays untouched in the document, and with it focus, scroll, an open <details> and a sound that
 * plays. Nobody looks at a hidden page, so it isn't kept up. Without this script a page shows how things stood when it
 * was loaded.
 */

const RETRY_MS = 5_000;

const main = document.querySelector("[data-live]");
const notice = document.getElementById("away");

/** @type {EventSource | null} */
let source = null;
let seen = main?.dataset.seen ?? "";
let over = main === null;
let retry = 0;

function listen() {
  if (over || document.hidden || source !== null) return;
  const url = new URL(main.dataset.live, location.href);
  url.searchParams.set("seen", seen);
  source = new EventSource(url);
  source.addEventListener("parts", ({ data, lastEventId }) => {
    tell("");
    seen = lastEventId;
    show(data);
  });
  source.addEventListener("away", ({ data }) => tell(data));
  source.addEventListener("over", () => {
    over = true;
    leave();
  });
  source.addEventListener("open", () => tell(""));
  source.addEventListener("error", () => {
    tell("The server doesn’t answer: this is how things stood a moment ago.");
    if (source?.readyState !== EventSource.CLOSED) return; // it tries again by itself
    leave();
    retry = setTimeout(listen, RETRY_MS);
  });
}

function leave() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

function tell(text) {
  if (notice.textContent !== text) notice.textContent = text;
}

document.addEventListener("visibilitychange", () => (document.hidden ? leave() : listen()));
addEventListener("pagehide", leave);
addEventListener("pageshow", listen);
listen();

// ── the document ──────────────────────────────────────────────────────────────

function show(markup) {
  const template = document.createElement("template");
  template.innerHTML = markup;
  for (const part of template.content.children) {
    const there = document.getElementById(part.id);
    if (there !== null) become(there, part);
  }
}

/** Makes a node what another is, and touches only what differs. */
function become(node, other) {
  if (node.isEqualNode(other)) return;
  if (node.nodeName !== other.nodeName) {
    node.replaceWith(other);
  } else if (node.nodeType !== Node.ELEMENT_NODE) {
    node.nodeValue = other.nodeValue;
  } else {
    becomeAttributes(node, other);
    becomeChildren(node, other);
  }
}

function becomeAttributes(node, other) {
  for (const name of node.getAttributeNames()) {
    // Whether a <details> is open is up to whoever reads it.
    if (!other.hasAttribute(name) && !(node.nodeName === "DETAILS" && name === "open")) node.removeAttribute(name);
  }
  for (const { name, value } of other.attributes) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
}

/** Children with an id are found by it, the others by their place. One with `data-keep` comes as a part of its own. */
function becomeChildren(node, other) {
  let place = node.firstChild;
  for (const next of Array.from(other.childNodes)) {
    const there = next.id ? Array.from(node.children).find(({ id }) => id === next.id) : sameKind(place, next);
    if (there === undefined) {
      node.insertBefore(next, place);
      continue;
    }
    if (there === place) place = place.nextSibling;
    else node.insertBefore(there, place);
    if (!next.dataset?.keep) become(there, next);
  }
  while (place !== null) {
    const rest = place.nextSibling;
    place.remove();
    place = rest;
  }
}

function sameKind(place, next) {
  return place !== null && place.nodeName === next.nodeName && !place.id ? place : undefined;
}
