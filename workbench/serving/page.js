"use strict";
// Sends one picture and shows its answer. Texts from the model go in as text, never as markup.

const at = (id) => document.getElementById(id);
const percent = (share) => (100 * share).toFixed(share < 0.0995 ? 2 : 1) + " %";
let picture = null; // the file that is shown
let shown = null; // its last answer
let asked = 0; // only the answer to the last question is shown

function say(text, isBad = false, isForEars = false) {
  at("state").textContent = text;
  at("state").classList.toggle("offscreen", isForEars);
  at("state").classList.toggle("bad", isBad);
}

async function ask(file, name) {
  const most = Number(document.body.dataset.bytes);
  if (file.size > most) {
    say(`${file.name || "The picture"} has ${(file.size / 1e6).toFixed(1)} MB; at most ${most / 1e6} MB are taken.`, true);
    return;
  }
  const mine = ++asked;
  say("Looking…");
  at("result").setAttribute("aria-busy", "true");
  const query = new URLSearchParams({ map: "1", ...(name === undefined ? {} : { class: name }) });
  try {
    const type = "application/octet-stream";
    const reply = await fetch("predict?" + query, { method: "POST", headers: { "content-type": type }, body: file });
    const answer = await reply.json();
    if (mine !== asked) return;
    if (!reply.ok) throw new Error(answer.error);
    picture = file;
    show(answer);
  } catch (error) {
    if (mine === asked) say(error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message, true);
  } finally {
    if (mine === asked) at("result").removeAttribute("aria-busy");
  }
}

function show(answer) {
  const focused = document.activeElement?.closest("#bars button")?.dataset.name;
  shown = answer;
  const best = answer.answers[0];
  at("best").textContent = best.class;
  at("mapped").textContent = answer.map.class;
  at("bars").replaceChildren(...answer.answers.map((row) => bar(row, row.class === answer.map.class)));
  const milliseconds = Math.round(1000 * answer.seconds);
  at("facts").textContent = `${answer.width} × ${answer.height} pixels, answered in ${milliseconds} ms`;
  at("result").hidden = false;
  draw();
  say(`${best.class}, ${percent(best.probability)}`, false, true); // eyes have it below
  if (focused !== undefined) [...at("bars").querySelectorAll("button")].find((b) => b.dataset.name === focused)?.focus();
}

function bar(row, isMapped) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const name = document.createElement("span");
  const share = document.createElement("span");
  const track = document.createElement("span");
  const filled = document.createElement("span");
  button.type = "button";
  button.dataset.name = row.class;
  button.setAttribute("aria-pressed", String(isMapped));
  button.addEventListener("click", () => ask(picture, row.class));
  name.textContent = row.class;
  share.textContent = percent(row.probability);
  share.className = "share";
  track.className = "track";
  filled.style.width = 100 * row.probability + "%"; // set by script: the policy allows no style in markup
  track.append(filled);
  button.append(name, share, track);
  item.append(button);
  return item;
}

function draw() {
  const hot = at("heat").checked;
  at("seen").src = hot ? shown.map.overlay : shown.map.seen;
  at("seen").alt = hot ? `What the model saw, brighter where it speaks for ${shown.map.class}` : "What the model saw";
}

function take(files) {
  const file = [...(files || [])][0];
  if (file) ask(file);
}

at("heat").addEventListener("change", draw);
at("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files);
});
