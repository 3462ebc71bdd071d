// What a page with JavaScript can do beyond the plain one: drop, paste, take a photo, and stay on the page meanwhile.
"use strict";

document.documentElement.classList.add("js");
if (navigator.maxTouchPoints > 0) document.documentElement.classList.add("touch");

// What happens, for the eyes too unless the page shows it itself.
function status(text, shown = true) {
  const line = document.getElementById("status");
  line.textContent = text;
  line.classList.toggle("hidden", !shown);
}
const form = () => document.getElementById("upload");
let running = null;

// Send the form and put the answer's content in place of this page's.
async function send(body) {
  if (running) running.abort();
  running = new AbortController();
  const mine = running;
  document.body.setAttribute("aria-busy", "true");
  status("Looking at it…");
  try {
    const answer = await fetch("/caption", { method: "POST", body, signal: mine.signal });
    const text = await answer.text();
    if (mine !== running) return;
    const page = new DOMParser().parseFromString(text, "text/html");
    const found = page.querySelector("main");
    if (!found) throw new Error(`the server answered ${answer.status}`);
    if (!location.pathname.startsWith("/caption")) history.pushState({}, "", "/caption");
    document.querySelector("main").replaceWith(found);
    document.title = page.title;
    const heading = found.querySelector("h1");
    const said = found.querySelector(".clips") ? `Described: ${heading.textContent}` : `Caption: ${heading.textContent}`;
    status(answer.ok ? said : "That did not work.", false);
    heading.focus();
    window.scrollTo(0, 0);
  } catch (error) {
    if (error.name !== "AbortError") status(`That did not work: ${error.message}. Is captioner serve still running?`);
  } finally {
    if (mine === running) {
      running = null;
      document.body.removeAttribute("aria-busy");
    }
  }
}

function sendFile(file) {
  if (!file) return;
  if (file.type && !/^(image|video)\//.test(file.type)) {
    status(`${file.name} is neither an image nor a video.`);
    return;
  }
  const body = new FormData();
  body.append("image", file, file.name || "pasted.png");
  send(body);
}

document.addEventListener("submit", (event) => {
  if (event.target !== form()) return;
  event.preventDefault();
  const url = document.getElementById("url");
  if (!document.getElementById("image").files.length && !(url && url.value.trim())) {
    status(url ? "Choose a file or give its address first." : "Choose a file first.");
    return;
  }
  send(new FormData(form()));
});

document.addEventListener("change", (event) => {
  if (event.target.id === "image" || event.target.id === "camera") sendFile(event.target.files[0]);
});

document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) {
    event.preventDefault();
    sendFile(file);
  }
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  form()?.classList.add("over");
});

document.addEventListener("dragleave", () => form()?.classList.remove("over"));

document.addEventListener("drop", (event) => {
  event.preventDefault();
  form()?.classList.remove("over");
  sendFile(event.dataTransfer.files[0]);
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    status("Copied.");
  } catch {
    status("The browser does not allow copying here; select the caption instead.");
  }
});

// A result has no address of its own: going back from it shows the page before.
window.addEventListener("popstate", () => location.reload());
