// Fetches the page again when something happened and swaps the parts that
// differ. Without it the page reloads itself every half minute.
"use strict";

const state = document.getElementById("state");
const slow = 15000; // round trips and times of asking move without any event
let busy = false, again = false, failed = false;

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
    return copy.outerHTML;
  };
  return plain(a) !== plain(b);
}

function swap(next) {
  const now = new Map(), seen = new Set();
  for (const e of document.querySelectorAll("[data-live]")) now.set(e.id, e);
  let before = null;
  for (const part of next.querySelectorAll("[data-live]")) {
    seen.add(part.id);
    const old = now.get(part.id);
    const focus = document.activeElement;
    if (old === undefined) {
      location.reload(); // a part appeared: the page has another shape now
      return;
    }
    if (differs(old, part)) {
      const href = old.contains(focus) ? focus.getAttribute("href") : null;
      old.replaceWith(part);
      if (href !== null) {
        for (const a of part.querySelectorAll("a")) if (a.getAttribute("href") === href) { a.focus({ preventScroll: true }); break; }
      }
    }
    before = part;
  }
  for (const [id, e] of now) if (!seen.has(id)) e.remove();
  document.title = next.title;
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok && answer.status !== 404) throw new Error(answer.status);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const at = next.querySelector("time[data-fixed]");
    if (at) offset = Date.parse(at.dateTime) - Date.now();
    swap(next);
    tick();
    failed = false;
  } catch {
    failed = true;
    say(state.dataset.lost);
  }
  busy = false;
  if (again) { again = false; refresh(); }
}

function listen() {
  const source = new EventSource("/live");
  source.addEventListener("hello", () => { say(state.dataset.liveOn); document.documentElement.dataset.following = "yes"; refresh(); });
  source.addEventListener("news", refresh);
  source.onerror = () => {
    say(state.dataset.lost);
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, slow); // refused, as when too many pages are open
  };
}

const first = document.querySelector("time[data-fixed]");
if (first) offset = Date.parse(first.dateTime) - Date.now();
say(state.dataset.wait);
tick();
setInterval(tick, 1000);
setInterval(() => { if (!document.hidden) refresh(); }, slow);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
listen();
