// The page: photos in, bars, maps, boxes and similar photos out. All text from outside is set as text, never as HTML.

const AT_ONCE = 4; // photos asked about together
const TRIES = 8; // where the server is full
const SIMILAR = 6;
const TALL = 400; // pixels of the page, of a picture
const WIDE = 260; // what small ones are enlarged to

const find = (name, from = document) => from.querySelector(name);
const cards = find("#cards");
const status = find("#status");
const waiting = [];
let served = null;
let number = 0;
let running = 0;
let done = 0;
let faults = 0;

// --- asking

class Mistake extends Error {}

async function ask(path, body) {
  for (let attempt = 1; ; attempt += 1) {
    let answer;
    try {
      answer = await fetch(path, body === undefined ? {} : { method: "POST", body, headers: { "content-type": "application/octet-stream" } });
    } catch {
      throw new Mistake("The server does not answer: is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 503 && attempt < TRIES) {
      await pause(1000 * Number(answer.headers.get("retry-after") || 1));
      continue;
    }
    throw new Mistake(await sentence(answer));
  }
}

const pause = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));

async function sentence(answer) {
  try {
    const { message } = (await answer.json()).error;
    return message.charAt(0).toUpperCase() + message.slice(1);
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

// --- photos in

function take(files) {
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
  tell();
}

function tell() {
  const left = running + waiting.length;
  find("#clear").hidden = !cards.children.length;
  if (left) status.textContent = `${left} ${left === 1 ? "photo is" : "photos are"} being looked at …`;
  else if (done) {
    const failed = faults ? `, ${faults} could not be` : "";
    status.textContent = `${done - faults} ${done - faults === 1 ? "photo" : "photos"} answered${failed}`;
  } else status.textContent = "";
}

// --- one photo

class Card {
  constructor(file) {
    number += 1;
    this.file = file;
    this.id = `photo-${number}`;
    this.views = new Map(); // addresses of pictures that were made, by kind and class
    this.boxes = [];
    this.chosen = null;
    this.element = find("#card").content.firstElementChild.cloneNode(true);
    this.part = (name) => find(name, this.element);
    this.part("h2").textContent = file.name || "Pasted photo";
    this.part("h2").id = this.id;
    this.element.setAttribute("aria-labelledby", this.id);
    this.part(".remove").setAttribute("aria-label", `Remove ${file.name || "the photo"}`);
    this.part(".remove").addEventListener("click", () => this.remove());
    this.address = URL.createObjectURL(file);
    const photo = this.part(".photo");
    photo.alt = file.name || "Pasted photo";
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
    this.part(".state").textContent = "Looking …";
    try {
      const told = await (await ask("predict?top=5", this.file)).json();
      this.part(".state").hidden = true;
      this.bars(told.predictions);
      if (served.ways.includes("localise")) await this.locate();
      if (served.ways.includes("similar")) await this.compare();
    } catch (fault) {
      faults += 1;
      this.fail(fault);
    }
  }

  fail(fault) {
    const state = this.part(".state");
    state.textContent = fault instanceof Mistake ? fault.message : `The page failed: ${fault.message}`;
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
      find(".name", row).textContent = one.class;
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
    this.part(".classes legend").textContent = choice ? "Likeliest classes; the chosen one is shown on the photo" : "Likeliest classes";
    this.part(".classes").hidden = false;
    this.part(".views").hidden = !served.ways.includes("explain");
  }

  choose(name) {
    this.chosen = name;
    this.draw();
    this.show();
  }

  // The photo, or a map of the chosen class laid over it.
  async show() {
    const kind = find(".views input:checked", this.element).value;
    const map = this.part(".map");
    const wish = `${kind}?${this.chosen}`;
    this.wish = wish;
    if (kind === "photo") {
      map.hidden = this.part(".legend").hidden = true;
      return;
    }
    try {
      if (!this.views.has(wish)) {
        const query = new URLSearchParams({ kind, class: this.chosen, form: "png" });
        const picture = await (await ask(`explain?${query}`, this.file)).blob();
        this.views.set(wish, URL.createObjectURL(picture));
      }
      if (this.wish !== wish) return; // another was chosen meanwhile
      map.src = this.views.get(wish);
      const what = kind === "map" ? "Score map" : "Grad-CAM";
      map.alt = `${what} of ${this.chosen}`;
      map.hidden = this.part(".legend").hidden = false;
      this.part(".unseen").hidden = true;
      if (this.part(".photo").hidden) map.style.position = "static";
      find("#told").textContent = `${what} of ${this.chosen} is shown on ${this.part("h2").textContent}`;
    } catch (fault) {
      this.fail(fault);
    }
  }

  async locate() {
    const told = await (await ask("localise", this.file)).json();
    this.boxes = told.boxes;
    this.size = [told.width, told.height];
    this.part(".check").hidden = false;
    this.draw();
  }

  draw() {
    const layer = this.part(".boxes");
    const line = this.part(".boxlist");
    const mine = this.boxes.find((one) => one.class === this.chosen);
    line.hidden = !mine;
    if (mine) {
      const [x1, y1, x2, y2] = mine.box.map(Math.round);
      line.textContent = `Box of ${mine.class}: from ${x1}, ${y1} to ${x2}, ${y2} pixels`;
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
      text.textContent = `${name} ${score.toFixed(2)}`;
      const places = { left: x1 / width, top: y1 / height, width: (x2 - x1) / width, height: (y2 - y1) / height };
      for (const [side, share] of Object.entries(places)) shape.style[side] = `${100 * share}%`;
      shape.append(text);
      layer.append(shape);
    }
  }

  async compare() {
    const { neighbours } = await (await ask(`similar?top=${SIMILAR}`, this.file)).json();
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
      title.textContent = name || image;
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
    tell();
  }
}

function percent(share) {
  const value = 100 * share;
  return value > 0 && value < 0.1 ? "< 0.1 %" : `${value.toFixed(1)} %`;
}

// --- ways in

find("#files").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = "";
});
find("#clear").addEventListener("click", () => {
  waiting.length = done = faults = 0;
  for (const button of [...cards.querySelectorAll(".remove")]) button.click();
  status.textContent = "All photos are removed";
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
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
  take(event.dataTransfer.files);
});

// --- what is served

async function begin() {
  try {
    served = await (await ask("info")).json();
  } catch (fault) {
    status.textContent = fault.message;
    status.className = "fault";
    return;
  }
  const count = served.classes.length;
  document.title = `${served.name} – verydeep`;
  find("#title").textContent = `Ask ${served.name}`;
  const names = served.classes.slice(0, 6).join(", ");
  find("#about").textContent = count > 6 ? `It tells ${count.toLocaleString("en")} classes: ${names}, …` : `It tells ${names}.`;
  const { bytes, pixels } = served.limits;
  find("#limits").textContent = `JPEG, PNG, WebP, AVIF, BMP, GIF, TIFF; up to ${Math.floor(bytes / 1e6)} MB and ${Math.floor(pixels / 1e6)} megapixels each`;
  document.body.dataset.ready = "yes";
  next();
}

begin();
