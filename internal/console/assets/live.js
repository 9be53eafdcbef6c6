// Takes the parts of the page that have changed from a stream and puts them in
// place. Without the stream it fetches the page again every now and then; without
// scripts the page reloads itself every half minute.
"use strict";

const state = document.getElementById("state");
const slow = 15000; // round trips and times of asking move without any event
let busy = false, again = false, failed = false, following = false;

function say(text) {
  if (state.textContent !== text) state.textContent = text;
}

function lengthOf(ms) {
  const s = ms / 1000;
  if (s < 1) return "just now";
  if (s < 60) return Math.floor(s) + " s ago";
  if (s < 3600) return Math.floor(s / 60) + " min ago";
  if (s < 172800) return Math.floor(s / 3600) + " h ago";
  return Math.floor(s / 86400) + " days ago";
}

// The server's clock counts, so that a wrong clock here shows no wrong ages.
let offset = 0;

function tick() {
  for (const t of document.querySelectorAll("time:not([data-fixed])")) {
    const text = lengthOf(Math.max(0, Date.now() + offset - Date.parse(t.dateTime)));
    if (t.textContent !== text) t.textContent = text;
  }
}

function differs(a, b) {
  const plain = (e) => {
    const copy = e.cloneNode(true);
    for (const t of copy.querySelectorAll("time")) t.textContent = "";
    for (const d of copy.querySelectorAll("details")) d.removeAttribute("open");
    return copy.outerHTML;
  };
  return plain(a) !== plain(b);
}

// What an element does, by which it is found again in a part that takes its own's place.
function doing(e) {
  const form = e.form ?? (e.tagName === "SUMMARY" ? e.parentElement.querySelector("form") : null);
  return [e.tagName, e.getAttribute("href"), form && form.getAttribute("action"), form && new URLSearchParams(new FormData(form)), e.name, e.value].join(" ");
}

// Opens in a new part what was open in the old one, and gives it the keyboard's focus
// where the old one had it.
function keep(open, focus, part) {
  for (const e of part.querySelectorAll("a, button, input, select, textarea, summary")) {
    const does = doing(e);
    if (e.tagName === "SUMMARY" && open.includes(does)) e.parentElement.open = true;
    if (does !== focus) continue;
    e.focus({ preventScroll: true });
    focus = null;
  }
}

// Puts parts in place of those that differ; ids are those of all parts that the page
// has now, parts maps some of them to their elements.
function swap(ids, parts, title) {
  const now = new Map();
  for (const e of document.querySelectorAll("[data-live]")) now.set(e.id, e);
  for (const id of ids) if (!now.has(id)) { location.reload(); return; } // the page has another shape now
  for (const [id, part] of parts) {
    const old = now.get(id);
    if (!old || !differs(old, part)) continue;
    const focus = old.contains(document.activeElement) ? doing(document.activeElement) : null;
    const open = [...old.querySelectorAll("details[open] > summary")].map(doing);
    old.replaceWith(part);
    keep(open, focus, part);
  }
  if (ids.length === 0) { location.reload(); return; } // it is gone
  for (const [id, e] of now) if (!ids.includes(id)) e.remove();
  if (title) document.title = title;
  tick();
}

// Takes what the stream tells of this page.
function hear(event) {
  const told = JSON.parse(event.data), parts = new Map();
  offset = Date.parse(told.at) - Date.now();
  for (const [id, text] of Object.entries(told.parts)) {
    const part = new DOMParser().parseFromString(text, "text/html").body.firstElementChild;
    if (part) parts.set(id, document.adoptNode(part));
  }
  swap(told.ids, parts, told.title);
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) { location.reload(); return; } // as to the sign-in, once that has ended
    if (!answer.ok && answer.status !== 404) throw new Error(answer.status);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const at = next.querySelector("time[data-fixed]");
    if (at) offset = Date.parse(at.dateTime) - Date.now();
    const parts = new Map();
    for (const part of next.querySelectorAll("[data-live]")) parts.set(part.id, part);
    swap([...parts.keys()], parts, next.title);
    failed = false;
  } catch {
    failed = true;
    say(state.dataset.lost);
  }
  busy = false;
  if (again) { again = false; refresh(); }
}

function listen() {
  const source = new EventSource("/live?at=" + encodeURIComponent(location.pathname + location.search));
  source.addEventListener("hello", () => { following = true; say(state.dataset.liveOn); document.documentElement.dataset.following = "yes"; });
  source.addEventListener("page", hear);
  source.addEventListener("bye", () => { source.close(); location.reload(); }); // signed out, here or elsewhere
  source.onerror = () => {
    following = false;
    say(state.dataset.lost);
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    refresh(); // leads to the sign-in where that has ended
    setTimeout(listen, slow); // refused, as when too many pages are open
  };
}

const first = document.querySelector("time[data-fixed]");
if (first) offset = Date.parse(first.dateTime) - Date.now();
say(state.dataset.wait);
tick();
setInterval(tick, 1000);
// A page in which somebody writes has no parts to swap, and is left alone. Others are
// told what changed; without the stream they ask.
if (document.querySelector("[data-live]")) {
  const ask = () => { if (!document.hidden && !following) refresh(); };
  setInterval(ask, slow);
  document.addEventListener("visibilitychange", ask);
  listen();
} else {
  say("");
}
