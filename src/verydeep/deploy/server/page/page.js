// The page: images in; bars, maps, boxes and similar images out. All text from outside is set as text, never as HTML.

const AT_ONCE = 4; // images in progress
const TRIES = 8; // when the queue is full
const SIMILAR = 6;
const TALL = 400; // pixels on the page, at most
const WIDE = 260; // small images are enlarged to this

const find = (name, from = document) => from.querySelector(name);
const cards = find("#cards");
const status = find("#status");
const waiting = [];
let served = null;
let number = 0;
let running = 0;
let done = 0;
let failed = 0;

// --- requests

class ServerError extends Error {}

async function send(path, body) {
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, body === undefined ? {} : { method: "POST", body, headers: { "content-type": "application/octet-stream" } });
    } catch {
      throw new ServerError("The server does not respond: is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 503 && attempt < TRIES) {
      await pause(1000 * Number(response.headers.get("retry-after") || 1));
      continue;
    }
    throw new ServerError(await sentence(response));
  }
}

const pause = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));

async function sentence(response) {
  try {
    const { message } = (await response.json()).error;
    return message.charAt(0).toUpperCase() + message.slice(1);
  } catch {
    return `The server returned status ${response.status}.`;
  }
}

// --- images in

function add(files) {
  for (const file of files) {
    const card = new Card(file);
    cards.prepend(card.element);
    waiting.push(card);
  }
  next();
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    const card = waiting.shift();
    if (!card.element.isConnected) continue;
    running += 1;
    card.run().finally(() => {
      running -= 1;
      done += 1;
      next();
    });
  }
  showStatus();
}

const images = (count) => `${count} ${count === 1 ? "image" : "images"}`;

function showStatus() {
  const left = running + waiting.length;
  find("#clear").hidden = !cards.children.length;
  if (left) status.textContent = `Predicting: ${images(left)} left …`;
  else if (done) status.textContent = failed ? `${images(done)}, ${failed} failed` : images(done);
  else status.textContent = "";
}

// --- one image

class Card {
  constructor(file) {
    number += 1;
    this.file = file;
    this.id = `image-${number}`;
    this.views = new Map(); // URLs of maps, by kind and class
    this.boxes = [];
    this.chosen = null;
    this.element = find("#card").content.firstElementChild.cloneNode(true);
    this.part = (name) => find(name, this.element);
    this.part("h2").textContent = file.name || "Pasted image";
    this.part("h2").id = this.id;
    this.element.setAttribute("aria-labelledby", this.id);
    this.part(".remove").setAttribute("aria-label", `Remove ${file.name || "the image"}`);
    this.part(".remove").addEventListener("click", () => this.remove());
    this.address = URL.createObjectURL(file);
    const photo = this.part(".photo");
    photo.alt = file.name || "Pasted image";
    photo.addEventListener("error", () => {
      photo.hidden = true;
      this.part(".unseen").hidden = false;
    });
    photo.addEventListener("load", () => {
      const { naturalWidth: width, naturalHeight: height } = photo;
      const shown = Math.min(Math.max(width, WIDE), (TALL * width) / height);
      this.part(".frame").style.width = `min(100%, ${Math.max(shown, 40)}px)`;
    });
    photo.src = this.address;
    for (const input of this.element.querySelectorAll(".views input")) {
      input.name = `${this.id}-view`;
      input.addEventListener("change", () => this.show());
    }
    this.part(".boxed").addEventListener("change", () => this.draw());
  }

  async run() {
    this.part(".state").textContent = "Predicting …";
    try {
      const { predictions, labels, unknown } = await (await send("predict?top=5", this.file)).json();
      const all = labels ? labels.join(", ") || "None of the classes" : "";
      this.part(".state").textContent = unknown ? "Unknown: probably none of these classes" : all;
      this.part(".state").hidden = !(unknown || all);
      this.bars(predictions);
      if (served.ways.includes("localise")) await this.locate();
      if (served.ways.includes("similar")) await this.compare();
    } catch (fault) {
      failed += 1;
      this.fail(fault);
    }
  }

  fail(fault) {
    const state = this.part(".state");
    state.textContent = fault instanceof ServerError ? fault.message : `Error in the page: ${fault.message}`;
    state.className = "state fault";
    state.setAttribute("role", "alert");
    state.hidden = false;
  }

  bars(predictions) {
    const choice = served.ways.includes("explain") || served.ways.includes("localise");
    const list = this.part(".classes ol");
    for (const [rank, one] of predictions.entries()) {
      const row = find("#row").content.firstElementChild.cloneNode(true);
      const input = find("input", row);
      const [words, wnid] = shown(one.class);
      find(".name", row).append(words);
      if (wnid) {
        const small = document.createElement("small");
        small.textContent = wnid;
        find(".name", row).append(" ", small);
      }
      find(".value", row).textContent = "score" in one ? one.score.toFixed(3) : percent(one.probability);
      const share = "score" in one ? (one.score + 1) / 2 : one.probability; // of scores, -1 to 1 are the margin
      find(".fill", row).style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
      if (choice) {
        input.name = `${this.id}-class`;
        input.checked = rank === 0;
        input.addEventListener("change", () => this.choose(one.class));
      } else {
        input.remove();
        find(".row", row).classList.add("plain");
      }
      list.append(row);
    }
    this.chosen = predictions[0].class;
    this.part(".classes legend").textContent = choice ? "Most likely classes; the selected one is shown on the image" : "Most likely classes";
    this.part(".classes").hidden = false;
    this.part(".views").hidden = !served.ways.includes("explain");
  }

  choose(name) {
    this.chosen = name;
    this.draw();
    this.show();
  }

  // The image, or a map of the selected class over it.
  async show() {
    const kind = find(".views input:checked", this.element).value;
    const map = this.part(".map");
    const view = `${kind}?${this.chosen}`;
    this.view = view;
    if (kind === "photo") {
      map.hidden = this.part(".legend").hidden = true;
      return;
    }
    try {
      if (!this.views.has(view)) {
        const query = new URLSearchParams({ kind, class: this.chosen, form: "png" });
        const picture = await (await send(`explain?${query}`, this.file)).blob();
        this.views.set(view, URL.createObjectURL(picture));
      }
      if (this.view !== view) return; // another was selected meanwhile
      map.src = this.views.get(view);
      const what = kind === "map" ? "Score map" : "Grad-CAM";
      map.alt = `${what} of ${short(this.chosen)}`;
      map.hidden = this.part(".legend").hidden = false;
      this.part(".unseen").hidden = true;
      if (this.part(".photo").hidden) map.style.position = "static";
      find("#shown").textContent = `${what} of ${short(this.chosen)} is shown on ${this.part("h2").textContent}`;
    } catch (fault) {
      this.fail(fault);
    }
  }

  async locate() {
    const { boxes, width, height } = await (await send("localise", this.file)).json();
    this.boxes = boxes;
    this.size = [width, height];
    this.part(".check").hidden = false;
    this.draw();
  }

  draw() {
    const layer = this.part(".boxes");
    const line = this.part(".boxlist");
    const selected = this.boxes.find((one) => one.class === this.chosen);
    line.hidden = !selected;
    if (selected) {
      const [x1, y1, x2, y2] = selected.box.map(Math.round);
      line.textContent = `Box of ${short(selected.class)}: from ${x1}, ${y1} to ${x2}, ${y2} pixels`;
    }
    layer.replaceChildren();
    layer.hidden = !this.part(".boxed").checked;
    const order = [...this.boxes].sort((one, other) => (one.class === this.chosen) - (other.class === this.chosen));
    for (const { class: name, score, box } of order) {
      const [width, height] = this.size;
      const [x1, y1, x2, y2] = box;
      const shape = document.createElement("div");
      const text = document.createElement("span");
      shape.className = name === this.chosen ? "box chosen" : "box";
      text.textContent = `${short(name)} ${score.toFixed(2)}`;
      const places = { left: x1 / width, top: y1 / height, width: (x2 - x1) / width, height: (y2 - y1) / height };
      for (const [side, share] of Object.entries(places)) shape.style[side] = `${100 * share}%`;
      shape.append(text);
      layer.append(shape);
    }
  }

  async compare() {
    const { neighbours } = await (await send(`similar?top=${SIMILAR}`, this.file)).json();
    const list = this.part(".similar ul");
    for (const { image, class: name, cosine, photo } of neighbours) {
      const item = document.createElement("li");
      if (photo !== null) {
        const picture = document.createElement("img");
        picture.alt = "";
        picture.loading = "lazy";
        picture.addEventListener("error", () => picture.remove());
        picture.src = `photos/${photo}`;
        item.append(picture);
      }
      const title = document.createElement("b");
      title.textContent = short(name) || image;
      item.title = image;
      item.append(title, document.createElement("br"), `${image.split("/").pop()}, ${cosine.toFixed(3)}`);
      list.append(item);
    }
    this.part(".similar").hidden = !neighbours.length;
  }

  remove() {
    const after = this.element.nextElementSibling || this.element.previousElementSibling;
    this.element.remove();
    URL.revokeObjectURL(this.address);
    for (const address of this.views.values()) URL.revokeObjectURL(address);
    (after ? find(".remove", after) : find("#files")).focus();
    showStatus();
  }
}

// Of a class of ILSVRC the words, then the WNID; of others the name.
function shown(name) {
  const match = /^(n\d{8}) (.+)$/.exec(name);
  return match ? [match[2], match[1]] : [name, ""];
}

// What fits into a picture: the first of ILSVRC's words.
function short(name) {
  const [words, wnid] = shown(name);
  return wnid ? words.split(",")[0] : words;
}

function percent(share) {
  const value = 100 * share;
  return value > 0 && value < 0.1 ? "< 0.1 %" : `${value.toFixed(1)} %`;
}

// --- ways in

find("#files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
find("#clear").addEventListener("click", () => {
  waiting.length = done = failed = 0;
  for (const button of [...cards.querySelectorAll(".remove")]) button.click();
  status.textContent = "All images removed";
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));
let depth = 0;
document.addEventListener("dragenter", () => {
  depth += 1;
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => {
  depth -= 1;
  if (!depth) document.body.classList.remove("over");
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
});

// --- what is served

async function start() {
  try {
    served = await (await send("info")).json();
  } catch (fault) {
    status.textContent = fault.message;
    status.className = "fault";
    return;
  }
  const count = served.classes.length;
  document.title = `${served.name} – verydeep`;
  const names = served.classes.slice(0, 6).map(short).join(", ");
  const among = `${count.toLocaleString("en")} ${count === 1 ? "class" : "classes"}`;
  find("#about").textContent = `The net ${served.name} distinguishes ${among}: ${names}${count > 6 ? ", …" : ""}`;
  const { bytes, pixels } = served.limits;
  find("#limits").textContent = `JPEG, PNG, WebP, AVIF, BMP, GIF, TIFF; up to ${Math.floor(bytes / 1e6)} MB and ${Math.floor(pixels / 1e6)} megapixels each`;
  document.body.dataset.ready = "yes";
  next();
}

start();
