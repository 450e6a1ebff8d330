// Shows an answer while it comes. Without this script the form is sent by the browser, which waits for the whole answer.
const form = document.getElementById("send");
const result = document.getElementById("result");
const said = document.getElementById("said");
let running = null;

function words(text) {
  const note = document.createElement("p");
  note.className = "note bad";
  note.textContent = text;
  result.append(note);
}

// Replaces the answer, and leaves open what the person has opened.
function show(html) {
  const open = [...result.querySelectorAll("details")].map((each) => each.open);
  const fresh = new DOMParser().parseFromString(html, "text/html");
  if (result.contains(document.activeElement)) result.setAttribute("tabindex", "-1");
  const focused = result.contains(document.activeElement);
  result.replaceChildren(...fresh.body.childNodes);
  result.querySelectorAll("details").forEach((each, at) => { each.open = Boolean(open[at]); });
  if (focused) result.focus();
  const state = result.querySelector("#result-heading .chip");
  if (state && said.textContent !== state.textContent) said.textContent = state.textContent;  // for those who do not see it
}

function take(event) {
  const lines = event.split("\n");
  const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
  const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
  if (!name || !data) return;
  if (name === "part") show(JSON.parse(data)); else words(JSON.parse(data));
}

async function read(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    events.forEach(take);
  }
}

function ended() {
  const state = document.getElementById("state");
  if (state?.dataset.next) form.elements.once.value = state.dataset.next;
  return state?.dataset.phase !== "running";
}

async function send(event) {
  event.preventDefault();
  if (running) return;
  const body = new URLSearchParams(new FormData(form));
  running = new AbortController();
  const button = form.querySelector("button");
  button.setAttribute("aria-disabled", "true");
  try {
    const headers = { "Interlock-Stream": "1" };
    const answer = await fetch(form.action, { method: "POST", body, headers, credentials: "same-origin", signal: running.signal });
    if ((answer.headers.get("content-type") || "").startsWith("text/event-stream")) {
      await read(answer);
      if (!ended()) words("The connection ended before the answer was complete. What was begun goes on: look at its task or decision.");
    } else {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      result.replaceChildren();
      words(page.querySelector(".detail, .note.bad")?.textContent || "The gateway refused the form: load the page again.");
    }
  } catch {
    words("The gateway does not answer. What was begun may go on: look at your tasks before you send this again.");
  } finally {
    running = null;
    button.removeAttribute("aria-disabled");
  }
}

if (form && result) form.addEventListener("submit", send);
