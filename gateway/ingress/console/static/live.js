// Renews the parts of a page when the gateway tells that they changed. Without this script the page shows what it was.
const address = document.body.dataset.live;
const note = document.getElementById("live-note");
let source = null;
let renewing = false;
let again = false;

function say(words) {
  if (note && note.textContent !== words) note.textContent = words;
}

async function renew() {
  if (renewing) { again = true; return; }
  renewing = true;
  try {
    const answer = await fetch(location.href, { headers: { "Interlock-Refresh": "1" }, credentials: "same-origin" });
    if (!answer.ok) { stop("This page is no longer up to date: reload it."); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const other = fresh.getElementById(part.id);
      // what a person is using stays as it is
      if (!other || part.contains(document.activeElement) || part.innerHTML === other.innerHTML) continue;
      part.replaceChildren(...other.childNodes);
    }
    if (!fresh.body.dataset.live) stop("");
  } catch {
    say("The gateway does not answer.");
  } finally {
    renewing = false;
    if (again) { again = false; renew(); }
  }
}

// Parts that take longer are loaded after the page: without this script there is a link to each.
async function load(part) {
  const answer = await fetch(part.dataset.load, { headers: { "Interlock-Refresh": "1" }, credentials: "same-origin" });
  if (!answer.ok) return;
  const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
  if (found) part.replaceChildren(...found.childNodes);
}

function stop(words) {
  if (source) source.close();
  source = null;
  say(words);
}

// An EventSource does not tell why it was refused; a plain request to the same address does. An answer that is a stream is let go.
async function explain() {
  stop("No longer live: reload the page.");
  const asked = new AbortController();
  const answer = await fetch(address, { credentials: "same-origin", signal: asked.signal });
  if (answer.headers.get("content-type") === "application/problem+json") say(`Not live: ${(await answer.json()).detail}`);
  asked.abort();
}

function start() {
  if (source || !address) return;
  source = new EventSource(address);
  source.addEventListener("open", () => say("Live"));
  source.addEventListener("changed", renew);
  source.addEventListener("error", () => {
    if (source && source.readyState === EventSource.CLOSED) explain().catch(() => {});
  });
}

// A page in the background holds no connection, since browsers have few of them.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { if (source) { source.close(); source = null; } } else { start(); if (address) renew(); }
});
window.addEventListener("pagehide", () => stop(""));
for (const part of document.querySelectorAll("[data-load]")) load(part).catch(() => {});
start();

// A file is read into the field that it fills: the gateway gets a text, as if it was typed.
for (const chosen of document.querySelectorAll("input[data-fills]")) {
  chosen.closest(".upload").hidden = false;
  chosen.addEventListener("change", async () => {
    const [file] = chosen.files, field = chosen.form.elements[chosen.dataset.fills];
    if (!file) return;
    if (file.size > field.maxLength) { chosen.setCustomValidity(`The file has more than ${field.maxLength} characters: use interlock policy what-if.`); chosen.reportValidity(); return; }
    chosen.setCustomValidity("");
    field.value = await file.text();
  });
}

// Older decisions are replayed one part after the other, as the button does, as long as the page is open.
async function replayOlder(form) {
  const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), credentials: "same-origin" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const rows = fresh.getElementById("changes"), progress = fresh.getElementById("progress"), next = fresh.getElementById("older");
  if (!rows || !progress) return;
  document.getElementById("changes").append(...[...rows.children].filter((row) => row.children.length > 1));
  document.getElementById("progress").replaceChildren(...progress.childNodes);
  if (next && document.getElementById("changes").children.length < 1000) {
    form.replaceChildren(...next.childNodes);
    await replayOlder(form);
  } else if (!next) form.remove();
}
const older = document.getElementById("older");
if (older) older.addEventListener("submit", (event) => { event.preventDefault(); replayOlder(older).catch(() => older.submit()); });
