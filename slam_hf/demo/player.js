// The takes of a run, which can be heard while they are made. `props.value` is {run, takes, status}. It grows while a
// run goes on: chunks of audio and units are added to its takes. A take that is complete plays in an audio element.
// Until then, its chunks are scheduled one after another in an audio context.

const list = element.querySelector(".takes");
const status = element.querySelector(".status");
const UNIT_HEIGHT = 16, GAP = 7, BAR = 3, SPACE = 1.5;
let players = [], run = null, stopped = null, revealed = false, context = null;

function unlock(rate) {
  if (!context) context = new AudioContext({ sampleRate: rate });
  if (context.state === "suspended") context.resume();
  return context;
}
// Browsers allow sound after a gesture: a press on any button of the page is one.
for (const gesture of ["pointerdown", "keydown"])
  document.addEventListener(gesture, () => context && context.resume(), { passive: true });

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const samples = new Int16Array(bytes.buffer), result = new Float32Array(samples.length);
  for (let i = 0; i < samples.length; i++) result[i] = samples[i] / 32768;
  return result;
}

function wav(chunks, rate) {
  const size = 2 * chunks.reduce((total, chunk) => total + chunk.length, 0);
  const view = new DataView(new ArrayBuffer(44 + size));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + size, true); text(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, size, true);
  let at = 44;
  for (const chunk of chunks) for (const sample of chunk) { view.setInt16(at, Math.round(sample * 32768), true); at += 2; }
  return new Blob([view], { type: "audio/wav" });
}

class Player {
  constructor(take) {
    this.chunks = []; this.samples = 0; this.sources = []; this.started = null;
    this.name = take.name;
    this.title = make("h3", {}, take.name);
    this.facts = make("p", { class: "facts" });
    this.canvas = make("canvas", { role: "img" });
    this.ends = make("div", { class: "ends", "aria-hidden": "true" }, make("span", {}, "prompt"), make("span", {}, "continuation"));
    this.button = make("button", { type: "button", class: "play" });
    this.skip = make("button", { type: "button", class: "skip" }, "Skip the prompt");
    this.seek = make("input", { type: "range", min: 0, max: 0, step: 0.05, value: 0, "aria-label": `Position in ${take.name}` });
    this.time = make("span", { class: "time" });
    this.save = make("a", { class: "save", hidden: "" }, "Save");
    this.audio = make("audio", { preload: "auto" });
    this.card = make("article", { class: "take", "aria-label": take.name },
      make("header", {}, this.title, this.facts),
      make("div", { class: "picture" }, this.canvas, this.ends),
      make("div", { class: "controls" }, this.button, this.seek, this.time, this.skip, this.save), this.audio);
    list.append(this.card);
    this.button.onclick = () => (this.playing ? this.pause() : this.play(this.position >= this.seconds - 0.05 ? 0 : this.position));
    this.skip.onclick = () => this.play(this.take.prompt_seconds);
    this.seek.oninput = () => this.go(Number(this.seek.value));
    this.canvas.onclick = (event) => this.play((event.offsetX / this.canvas.clientWidth) * this.scale);
    for (const event of ["play", "pause", "ended", "timeupdate"]) this.audio.addEventListener(event, () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.rest = 0;
    this.update(take);
  }

  get seconds() { return this.samples / this.take.sampling_rate; }
  get scale() { return Math.max(this.seconds, this.take.done ? 0 : this.take.expected_seconds, 0.1); }
  get live() { return this.started !== null; }
  get playing() { return this.live || !this.audio.paused; }
  get position() {
    if (this.live) return Math.max(0, Math.min(this.seconds, context.currentTime - this.started));
    return this.audio.src ? this.audio.currentTime : this.rest;
  }

  update(take) {
    this.take = take;
    for (const text of take.chunks.slice(this.chunks.length)) {
      const chunk = decode(text);
      this.chunks.push(chunk);
      const at = this.samples / take.sampling_rate;
      // Where the model is slower than the sound, the sound goes on after a pause.
      if (this.live) this.started += Math.max(0, context.currentTime + 0.05 - this.started - at);
      if (this.live) this.schedule(chunk, at);
      this.samples += chunk.length;
    }
    if (take.done && !this.audio.src && this.samples) {
      const url = URL.createObjectURL(wav(this.chunks, take.sampling_rate));
      this.audio.src = this.save.href = url;
      this.save.download = `${take.name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.wav`;
      this.save.setAttribute("aria-label", `Save ${take.name} as a WAV file`);
      this.save.hidden = false;
    }
    this.card.classList.toggle("making", !take.done);
    if (take.done && this.card.dataset.done !== "true") performance.mark(`made ${take.name}`);
    this.card.dataset.done = take.done;
    this.draw();
  }

  play(from) {
    players.forEach((other) => other !== this && other.pause());
    unlock(this.take.sampling_rate);
    this.silence();
    if (this.audio.src) {
      this.audio.currentTime = from;
      this.audio.play();
    } else {
      this.started = context.currentTime + 0.05 - Math.min(from, this.seconds);
      let at = 0;
      for (const chunk of this.chunks) { this.schedule(chunk, at); at += chunk.length / this.take.sampling_rate; }
    }
    this.follow();
  }

  schedule(chunk, at) {
    const rate = this.take.sampling_rate, start = this.started + at;
    const skipped = Math.max(0, context.currentTime - start);
    if (skipped >= chunk.length / rate) return;
    const buffer = context.createBuffer(1, chunk.length, rate);
    buffer.copyToChannel(chunk, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    source.start(start + skipped, skipped);
    this.sources.push(source);
  }

  silence() {
    this.sources.forEach((source) => source.stop());
    this.sources = []; this.started = null;
  }

  go(to) {
    const was = this.playing;
    this.pause();
    this.rest = to;
    if (this.audio.src) this.audio.currentTime = to;
    if (was) this.play(to);
    this.draw();
  }

  pause() {
    this.rest = this.position;
    const live = this.live;
    this.silence();
    if (this.audio.src) { this.audio.pause(); if (live) this.audio.currentTime = this.rest; }
    this.draw();
  }

  follow() {
    const step = () => {
      if (this.live && this.take.done && context.currentTime - this.started >= this.seconds) this.pause();
      this.draw();
      if (this.playing) requestAnimationFrame(step);
    };
    step();
  }

  draw() {
    const { take, canvas } = this, style = getComputedStyle(canvas);
    const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
    const action = this.playing ? "Pause" : "Play";
    if (this.button.dataset.action !== action) {
      this.button.dataset.action = action;
      this.button.setAttribute("aria-label", `${action} ${take.name}`);
    }
    this.seek.max = this.seconds;
    this.seek.value = this.position;
    this.seek.setAttribute("aria-valuetext", `${this.position.toFixed(1)} of ${this.seconds.toFixed(1)} seconds`);
    this.time.textContent = `${clock(this.position)} / ${clock(this.seconds)}`;
    this.facts.textContent = take.facts;
    this.skip.hidden = !take.prompt_seconds || take.prompt_seconds >= this.seconds;
    this.ends.hidden = this.skip.hidden && take.done;
    this.ends.style.setProperty("--prompt", `${(100 * take.prompt_seconds) / this.scale}%`);
    canvas.setAttribute("aria-label", `Waveform of ${take.name} with ${take.units.length} units. ${take.facts}`);
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio)) { canvas.width = width * ratio; canvas.height = height * ratio; }
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    const x = (seconds) => (seconds / this.scale) * width, rate = take.sampling_rate;
    const middle = (height - UNIT_HEIGHT - GAP) / 2, step = BAR + SPACE;
    const loudest = Math.max(0.05, ...this.peaks(width, step));
    this.peaks(width, step).forEach((peak, i) => {
      const at = i * step, tall = Math.max(1.5, (peak / loudest) * (middle - 1));
      g.fillStyle = style.getPropertyValue(at < x(take.prompt_seconds) ? "--prompt-colour" : "--new-colour");
      g.beginPath();
      g.roundRect(at, middle - tall, BAR, 2 * tall, BAR / 2);
      g.fill();
    });
    let at = 0;
    for (const [unit, seconds] of take.units) {
      const isPrompt = at + 1e-6 < take.prompt_seconds;
      g.fillStyle = `oklch(${style.getPropertyValue("--unit-lightness")} ${isPrompt ? 0.06 : 0.14} ${(unit * 137.508) % 360})`;
      g.fillRect(x(at), height - UNIT_HEIGHT, x(seconds) > 4 ? x(seconds) - 0.75 : x(seconds) + 0.25, UNIT_HEIGHT);
      at += seconds;
    }
    if (take.prompt_seconds && take.prompt_seconds < this.scale) {
      g.fillStyle = style.getPropertyValue("--line-colour");
      g.fillRect(x(take.prompt_seconds) - 1, 0, 1, height);
    }
    if (this.position > 0 && this.position < this.seconds) {
      g.fillStyle = style.getPropertyValue("--head-colour");
      g.fillRect(x(this.position) - 1, 0, 2, height);
    }
  }

  // The peak of each bar, of what is there so far.
  peaks(width, step) {
    const bar = (step / width) * this.scale * this.take.sampling_rate, key = `${this.samples} ${bar}`;
    if (this.known === key) return this.heights;
    const heights = new Array(Math.floor(this.samples / bar)).fill(0);
    let index = 0;
    for (const chunk of this.chunks)
      for (const sample of chunk) {
        const at = Math.floor(index++ / bar);
        if (at < heights.length) heights[at] = Math.max(heights[at], Math.abs(sample));
      }
    this.known = key;
    return (this.heights = heights);
  }

  remove() {
    this.pause();
    if (this.audio.src) URL.revokeObjectURL(this.audio.src);
    this.card.remove();
  }
}

// A take that is text: what was given and what the model adds.
class Text {
  constructor(take) {
    this.added = make("strong");
    this.given = make("span");
    this.facts = make("p", { class: "facts" });
    this.card = make("article", { class: "take text", "aria-label": take.name },
      make("header", {}, make("h3", {}, take.name), this.facts), make("blockquote", {}, this.given, this.added));
    list.append(this.card);
    this.update(take);
  }
  update(take) {
    this.take = take;
    this.given.textContent = take.given;
    this.added.textContent = take.text;
    this.facts.textContent = take.facts;
    this.card.dataset.done = take.done;
  }
  draw() {}
  pause() {}
  remove() { this.card.remove(); }
}

function show() {
  const value = props.value;
  if (!value || !value.takes) return;
  if (value.stopped) stopped = value.run;
  else if (value.run === stopped) return; // it was on its way when the visitor stopped
  if (value.run !== run) {
    players.forEach((player) => player.remove());
    players = []; run = value.run;
    element.dataset.heard = "";
    revealed = false;
  }
  value.takes.forEach((take, index) => {
    if (players[index]) players[index].update(take);
    else players[index] = take.text === null ? new Player(take) : new Text(take);
    const player = players[index];
    // The first continuation speaks by itself, as soon as there is something to hear.
    if (!element.dataset.heard && take.speaks && take.chunks.length) {
      element.dataset.heard = "yes";
      player.play(0);
      performance.mark("first sound");
    }
  });
  status.textContent = value.status;
  // On a phone, the takes are below the button, and out of sight.
  if (!revealed && players.some((player) => player.take.speaks || player.take.text !== null)) {
    revealed = true;
    if (element.getBoundingClientRect().top > innerHeight / 2) element.scrollIntoView({ behavior: "smooth" });
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(() => players.forEach((p) => p.draw()), 100));
new MutationObserver(() => players.forEach((p) => p.draw())).observe(document.body, { attributeFilter: ["class"] });
watch("value", show);
show();
