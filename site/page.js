// The demo page. All the seeing happens in pmp/; this file is words, pictures and paint.
import { Segmenter } from "./pmp/index.js";

/** Pictures are scaled down to this many pixels before they are looked at; the model sees 512 a side. */
const MAX_PIXELS = 4e6;
/** Waits this long for more words before it starts, in ms. */
const PATIENCE = 120;
/** A proposal is called a word that is at least so likely. */
const NAMED = 0.3;

// Okabe and Ito's colours, which most forms of colour blindness keep apart, and three more.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#9b6bd6", "#8bc34a", "#ff8a9a"];

const $ = (id) => document.getElementById(id);
const stage = $("stage"), photo = $("photo"), paint = $("paint"), labels = $("labels");
const chips = $("chips"), word = $("word"), status = $("status");
const url = new URL(location.href);

/** The words, each {text, colour, mask, item}; mask is null until there is an answer. */
let words = [];
/** The picture as shown: {source, bitmap, encoded}. */
let current = null;
/** The word whose mask is shown alone. */
let only = null, pinned = null;
/** What is shown: "masks", or the proposals "with" or "without" the words, each {path, word, score}. */
let view = "masks", proposals = [];

// ---------------------------------------------------------------------------
// The model

const loading = Segmenter.load({
  device: url.searchParams.get("device") ?? "auto",
  threads: Number(url.searchParams.get("threads")) || "auto",
  onprogress({ stage, loaded, total }) {
    if (stage === "download" && total) busy(`Getting the model: ${megabytes(loaded)} of ${megabytes(total)} MB, once`, loaded / total);
    else if (stage === "download") busy("Starting the engine…");
    else if (stage === "prepare") busy("Preparing the model…");
  },
});
loading.catch((e) => wrong(e));

const megabytes = (n) => (n / 1e6).toFixed(1);

let run = null; // AbortController of what goes on
let kept = null;
let soon = 0;

/** Asks for masks for the words as they are now; what was asked before is forgotten. */
function ask(wait = PATIENCE) {
  clearTimeout(soon);
  run?.abort();
  run = null;
  state("working");
  stage.classList.add("stale");
  soon = setTimeout(answer, wait);
}

async function answer() {
  const { signal } = (run = new AbortController());
  const mine = current, asked = [...words];
  try {
    const seg = await loading;
    if (signal.aborted) return;
    if (!mine.encoded) {
      busy("Looking at the picture…");
      // One encoding a picture, even when the words change while it goes on.
      mine.encoding ??= pixelsOf(mine).then((source) => seg.encode(source)).then((p) => (mine === current ? (mine.encoded = p) : p.close()));
      await mine.encoding;
      if (signal.aborted) return;
    }
    if (asked.length) {
      const { masks, labelMap } = await mine.encoded.segment(asked.map((w) => w.text), { signal });
      asked.forEach((w, i) => (w.mask = masks[i]));
      mine.labels = { map: labelMap, words: asked };
      await Promise.all(asked.map(async (w, i) => (w.layers = w.mask.area ? await layersOf(w, labelMap, i) : null)));
      if (signal.aborted) return;
    }
    proposals = view === "masks" || !asked.length ? [] : await proposalsOf(mine.encoded, asked, signal);
    if (signal.aborted) return;
    show();
    tell(seg.report(), asked);
    state("done");
    keep();
  } catch (e) {
    if (!signal.aborted) wrong(e);
  }
}

/** For tests and for style: what the page is doing. */
function state(name) {
  document.documentElement.dataset.state = name;
}

function busy(text, fraction) {
  $("busy").classList.remove("done");
  $("busy-text").textContent = text;
  if (fraction === undefined) $("bar").removeAttribute("value");
  else $("bar").value = fraction;
}

function wrong(e) {
  $("busy").classList.add("done");
  stage.classList.remove("stale");
  status.classList.add("wrong");
  status.textContent = sentence(e.message ?? String(e));
  state("wrong");
}

const sentence = (s) => s[0].toUpperCase() + s.slice(1) + (/[.!?…]$/.test(s) ? "" : ".");

/** The last line: what was found, how long it took and where it ran. */
function tell({ device, threads, times, counts }, asked) {
  $("busy").classList.add("done");
  status.classList.remove("wrong");
  if (view !== "masks" && asked.length) {
    const called = asked.map((w) => `${w.text.split(",")[0]} ${proposals.filter((p) => p.word === w).length}`).join(", ");
    status.textContent = `${proposals.length} proposals ${view === "with" ? "by a decoder that reads the words" : "by the same decoder when it may not read the words"}, of which the model calls ${called}.`;
    document.documentElement.dataset.encodes = counts.encode;
    return;
  }
  const found = asked.filter((w) => w.mask?.present).map((w) => w.text);
  const absent = asked.filter((w) => !w.mask?.present).map((w) => w.text);
  const machine = device.startsWith("webgpu") ? "your graphics card"
    : device === "scalar" ? "your processor, slowly, since this browser has no SIMD"
    : threads > 1 ? `your processor with ${threads} threads` : "your processor";
  const time = `${seconds(times.encode)} to look at the picture${asked.length ? `, ${seconds(times.segment + times.masks)} for the words` : ""}, on ${machine}.`;
  // The words' chips show what was found; who listens instead of looking hears it first.
  const heard = document.createElement("span");
  heard.className = "hidden";
  heard.textContent = `${found.length ? `Found: ${found.join("; ")}. ` : ""}${absent.length ? `Not in this picture: ${absent.join("; ")}. ` : ""}`;
  status.replaceChildren(heard, asked.length ? `It took ${time}` : `Type a word to look for. It took ${time}`);
  document.documentElement.dataset.encodes = counts.encode;
}

/** The proposals in the order in which they are drawn: the surest last. */
async function proposalsOf(encoded, asked, signal) {
  const found = await encoded.proposals(asked.map((w) => w.text), { guided: view === "with", signal });
  return found
    .filter((p) => p.area)
    .map((p) => ({ path: pathOf(p), score: p.score, word: p.score >= NAMED ? asked.find((w) => w.text === p.text) : null }))
    .sort((a, b) => a.score - b.score);
}

/** A mask's outlines, without specks, which would hide the rest where many masks lie on one another. */
function pathOf(mask) {
  const path = new Path2D(), speck = (mask.width * mask.height) / 400;
  for (const p of mask.polygons()) {
    let twice = 0; // the area
    for (let i = 0, j = p.length - 2; i < p.length; j = i, i += 2) twice += p[j] * p[i + 1] - p[i] * p[j + 1];
    if (Math.abs(twice) < 2 * speck) continue;
    path.moveTo(p[0], p[1]);
    for (let i = 2; i < p.length; i += 2) path.lineTo(p[i], p[i + 1]);
    path.closePath();
  }
  return path;
}

for (const input of document.querySelectorAll("[name=view]")) {
  input.addEventListener("change", () => {
    view = input.value;
    ask(0);
  });
}

const seconds = (ms) => (ms < 1000 ? `${Math.max(10, Math.round(ms / 10) * 10)} ms` : `${(ms / 1000).toFixed(1)} s`);

// ---------------------------------------------------------------------------
// Words

function addWord(text) {
  text = text.split(",").map((s) => s.trim()).filter(Boolean).join(", ");
  if (!text || words.some((w) => w.text.toLowerCase() === text.toLowerCase())) return false;
  const used = new Set(words.map((w) => w.colour));
  const colour = COLOURS.find((c) => !used.has(c)) ?? COLOURS[words.length % COLOURS.length];
  const w = { text, colour, mask: null, layers: null };
  words.push(w);
  chips.append(chipOf(w));
  return true;
}

function chipOf(w) {
  const item = (w.item = document.createElement("li"));
  item.className = "chip";
  item.style.setProperty("--colour", w.colour);
  const name = document.createElement("button");
  name.type = "button";
  name.className = "name";
  name.setAttribute("aria-pressed", "false");
  name.title = "Show only this";
  const b = document.createElement("b"), small = (w.note = document.createElement("small"));
  b.textContent = w.text;
  small.textContent = "looking…";
  name.append(b, small);
  const alone = (on) => { only = on ? w : pinned; draw(); };
  name.addEventListener("pointerenter", (e) => e.pointerType === "mouse" && alone(true));
  name.addEventListener("pointerleave", (e) => e.pointerType === "mouse" && alone(false));
  name.addEventListener("focus", () => name.matches(":focus-visible") && alone(true));
  name.addEventListener("blur", () => alone(false));
  name.addEventListener("click", () => pin(pinned === w ? null : w));
  const remove = document.createElement("button");
  remove.type = "button";
  remove.className = "remove";
  remove.textContent = "×";
  remove.setAttribute("aria-label", `Remove ${w.text}`);
  remove.addEventListener("click", () => {
    const i = words.indexOf(w);
    removeWord(w);
    // The keyboard goes on with the next word.
    (words[i]?.item.querySelector(".remove") ?? word).focus();
  });
  item.append(name, remove);
  return item;
}

function removeWord(w) {
  words = words.filter((v) => v !== w);
  w.item.remove();
  if (pinned === w) pin(null);
  if (only === w) only = null;
  ask();
}

function pin(w) {
  pinned = only = w;
  offer(w);
  for (const v of words) v.item.querySelector(".name").setAttribute("aria-pressed", String(v === w));
  draw();
}

function setWords(list) {
  words = [];
  pin(null);
  chips.replaceChildren();
  list.forEach(addWord);
}

$("form").addEventListener("submit", (e) => {
  e.preventDefault();
  if (addWord(word.value)) ask();
  word.value = "";
});
word.addEventListener("keydown", (e) => {
  if (e.key === "Backspace" && !word.value && words.length) removeWord(words.at(-1));
});
$("form").addEventListener("click", (e) => e.target === e.currentTarget && word.focus());
for (const b of document.querySelectorAll("[data-add]")) b.addEventListener("click", () => addWord(b.dataset.add) && ask());

/** The word whose mask lies under the pointer. */
function wordAt({ clientX, clientY }) {
  if (!current?.labels || view !== "masks") return null;
  const { map, words: asked } = current.labels;
  const area = stage.getBoundingClientRect(), [left, top, w, h] = fit(area.width, area.height);
  const { width, height } = current.encoded;
  const x = Math.floor(((clientX - area.left - left) / w) * width), y = Math.floor(((clientY - area.top - top) / h) * height);
  const found = x >= 0 && y >= 0 && x < width && y < height ? asked[map[y * width + x]] : null;
  return words.includes(found) ? found : null;
}

stage.addEventListener("pointermove", (e) => {
  const w = e.pointerType === "mouse" ? wordAt(e) : null;
  stage.classList.toggle("pointing", !!w);
  if (pinned || only === w) return;
  only = w;
  draw();
});
stage.addEventListener("pointerleave", () => {
  if (only === pinned) return;
  only = pinned;
  draw();
});
stage.addEventListener("click", (e) => {
  const w = wordAt(e);
  pin(w === pinned ? null : w);
});

// ---------------------------------------------------------------------------
// What one can take along

/** Offers a word's mask in several forms. */
function offer(w) {
  $("take").hidden = !w?.mask?.area;
  if (w) $("take-word").textContent = w.text.split(",")[0];
  $("take-done").textContent = "";
}

/** The chosen form of the pinned word's mask, as a file. */
async function taken() {
  const { mask, text } = pinned, name = text.split(",")[0].replace(/[^\p{L}\p{N}]+/gu, "-");
  const { width, height, score, bbox, area } = mask;
  const json = (what) => new File([JSON.stringify({ text, score, width, height, bbox, area, ...what })], `${name}.json`, { type: "application/json" });
  switch ($("take-form").value) {
    case "polygons": return json({ polygons: mask.polygons() });
    case "rle": return json({ rle: mask.rle() });
    case "mask": return new File([await mask.toBlob()], `${name}-mask.png`, { type: "image/png" });
  }
  const context = layer(width, height);
  context.drawImage(await mask.toImageBitmap(), 0, 0);
  context.globalCompositeOperation = "source-in";
  context.drawImage(photo, 0, 0, width, height);
  const [x, y, w, h] = bbox, cut = layer(w, h);
  cut.drawImage(context.canvas, -x, -y);
  return new File([await blobOf(cut)], `${name}.png`, { type: "image/png" });
}

$("take-save").addEventListener("click", async () => download(await taken()));
$("take-copy").addEventListener("click", async () => {
  const file = await taken(), done = $("take-done");
  try {
    if (file.type === "image/png") await navigator.clipboard.write([new ClipboardItem({ [file.type]: file })]);
    else await navigator.clipboard.writeText(await file.text());
    done.textContent = "Copied.";
  } catch {
    download(file); // this browser copies no pictures
    done.textContent = "Downloaded, since this browser does not let the page copy it.";
  }
  done.classList.remove("hidden");
});

function download(file) {
  const link = document.createElement("a");
  link.download = file.name;
  link.href = URL.createObjectURL(file);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---------------------------------------------------------------------------
// Pictures

/** Shows a picture, a URL or a file, and asks for the words that are there. */
async function setPicture(source, alt) {
  const address = typeof source === "string" ? source : URL.createObjectURL(source);
  const next = { source, encoded: null, encoding: null, width: 0, height: 0 };
  const probe = new Image();
  probe.src = address;
  try {
    await probe.decode();
  } catch {
    wrong(new Error("This browser cannot read that file as a picture. JPEG, PNG and WebP always work."));
    return false;
  }
  current?.encoded?.close();
  if (photo.src.startsWith("blob:")) URL.revokeObjectURL(photo.src);
  current = next;
  next.width = probe.naturalWidth;
  next.height = probe.naturalHeight;
  photo.src = address;
  photo.alt = alt;
  for (const w of words) Object.assign(w, { mask: null, layers: null });
  for (const t of thumbs) t.setAttribute("aria-pressed", String(t.dataset.src === source));
  draw();
  return true;
}

/** The picture as the model gets it: scaled down if it is very large. */
async function pixelsOf({ source, width, height }) {
  if (width * height <= MAX_PIXELS) return source;
  const scale = Math.sqrt(MAX_PIXELS / (width * height));
  const blob = typeof source === "string" ? await (await fetch(source)).blob() : source;
  return createImageBitmap(blob, { resizeWidth: Math.max(1, Math.round(width * scale)), resizeHeight: Math.max(1, Math.round(height * scale)), resizeQuality: "high" });
}

async function own(file) {
  if (!file) return;
  if (await setPicture(file, `Your picture ${file.name ?? ""}`)) ask(0);
}

$("file").addEventListener("change", (e) => {
  own(e.target.files[0]);
  e.target.value = ""; // so that the same file can be picked again
});
document.addEventListener("paste", (e) => {
  const file = [...(e.clipboardData?.files ?? [])].find((f) => f.type.startsWith("image/"));
  if (file) {
    e.preventDefault();
    own(file);
  }
});
for (const b of document.querySelectorAll("[data-close]")) b.addEventListener("click", () => b.closest("dialog").close());

// A camera: phones have their own for files, so this is for the rest.
// Chromium lays a page out before its style is there if a <video> stands in it, so this one comes later.
const finder = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
$("camera-dialog").prepend(finder);
$("camera").addEventListener("click", async () => {
  try {
    finder.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    $("camera-dialog").showModal();
    await finder.play();
  } catch (e) {
    wrong(new Error(`The camera cannot be used (${e.message ?? e.name}). Allow it in the browser's settings, or pick a photo`));
  }
});
$("camera-dialog").addEventListener("close", () => {
  for (const track of finder.srcObject?.getTracks() ?? []) track.stop();
  finder.srcObject = null;
});
$("shoot").addEventListener("click", async () => {
  if (!finder.videoWidth) return;
  const context = layer(finder.videoWidth, finder.videoHeight);
  context.drawImage(finder, 0, 0);
  $("camera-dialog").close();
  own(new File([await blobOf(context, "image/jpeg", 0.95)], "camera.jpg"));
});

$("address").addEventListener("click", () => $("address-dialog").showModal());
$("address-form").addEventListener("submit", () => fromAddress($("address-text").value));

/** A picture of another host comes by an <img>, the only thing that this page may get from elsewhere. */
async function fromAddress(address) {
  const image = new Image();
  image.crossOrigin = "anonymous";
  image.src = address;
  busy("Getting the picture…");
  try {
    await image.decode();
    const context = layer(image.naturalWidth, image.naturalHeight);
    context.drawImage(image, 0, 0);
    own(await blobOf(context));
  } catch {
    wrong(new Error("The picture at that address cannot be read: it is none, or its host does not let other pages read it. Save it and drop it here"));
  }
}

let depth = 0; // dragenter and dragleave come for children too
const carries = (e) => [...(e.dataTransfer?.types ?? [])].includes("Files");
document.addEventListener("dragenter", (e) => { if (carries(e)) { depth++; stage.classList.add("over"); } });
document.addEventListener("dragleave", (e) => { if (carries(e) && --depth <= 0) { depth = 0; stage.classList.remove("over"); } });
document.addEventListener("dragover", (e) => carries(e) && e.preventDefault());
document.addEventListener("drop", (e) => {
  if (!carries(e)) return;
  e.preventDefault();
  depth = 0;
  stage.classList.remove("over");
  own(e.dataTransfer.files[0]);
});

/** The example photos, whose words stand in the page. */
const thumbs = [...document.querySelectorAll(".thumb")];
const wordsOf = (thumb) => thumb.dataset.words.split(";");
for (const thumb of thumbs) {
  thumb.addEventListener("click", async () => {
    if (!(await setPicture(thumb.dataset.src, thumb.dataset.alt))) return;
    setWords(wordsOf(thumb));
    ask(0);
  });
}

// ---------------------------------------------------------------------------
// Paint

/**
 * A mask as pictures to draw in its colour: `area` is all of it, `share` the part where no other word
 * is stronger, so that colours never mix; and the place for its name, in its share if it has one.
 */
async function layersOf({ mask, colour }, labelMap, index) {
  const image = mask.toImageData({ color: [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)) });
  const area = await createImageBitmap(image);
  const all = mask.toBytes(), mine = all.map((v, i) => (labelMap[i] === index ? v : 0));
  mine.forEach((v, i) => { if (!v) image.data[4 * i + 3] = 0; });
  return { area, share: await createImageBitmap(image), anchor: deepest(mine, mask) ?? deepest(all, mask) ?? [0.5, 0.5] };
}

/** The point that lies deepest inside, in parts of the picture's sides; null if nothing is large enough. */
function deepest(bytes, { width, height }) {
  const w = Math.min(64, width), h = Math.min(64, height);
  const depth = new Float32Array((w + 2) * (h + 2)); // a border of 0 all round
  const at = (x, y) => (y + 1) * (w + 2) + x + 1;
  // Two passes of city-block distance, forward and back.
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const inside = bytes[Math.floor(((y + 0.5) * height) / h) * width + Math.floor(((x + 0.5) * width) / w)];
      depth[at(x, y)] = inside ? 1 + Math.min(depth[at(x - 1, y)], depth[at(x, y - 1)]) : 0;
    }
  }
  let best = 0, point = null;
  for (let y = h - 1; y >= 0; y--) {
    for (let x = w - 1; x >= 0; x--) {
      const d = (depth[at(x, y)] = Math.min(depth[at(x, y)], 1 + depth[at(x + 1, y)], 1 + depth[at(x, y + 1)]));
      if (d > best) [best, point] = [d, [(x + 0.5) / w, (y + 0.5) / h]];
    }
  }
  return point;
}

/** Where the picture lies in a box of the given size. */
function fit(width, height) {
  const scale = Math.min(width / current.width, height / current.height);
  const w = current.width * scale, h = current.height * scale;
  return [(width - w) / 2, (height - h) / 2, w, h];
}

/** Brings the answers to the chips and to the photo. */
function show() {
  for (const w of words) {
    const { mask } = w;
    w.item.classList.toggle("absent", !!mask && !mask.present);
    w.note.textContent = !mask ? "looking…" : !mask.present ? "not in this picture" : mask.area ? `${percent(mask.score)} sure` : "unsure where";
  }
  stage.classList.remove("stale");
  $("save").disabled = !words.some((w) => w.layers);
  offer(pinned);
  draw();
}

const percent = (score) => `${Math.min(99, Math.round(100 * score))} %`;

/** Paints the masks over the photo, at the resolution of the screen. */
function draw() {
  const sharp = Math.min(devicePixelRatio || 1, 2);
  const width = Math.round(stage.clientWidth * sharp), height = Math.round(stage.clientHeight * sharp);
  if (paint.width !== width || paint.height !== height) Object.assign(paint, { width, height });
  const context = paint.getContext("2d");
  context.clearRect(0, 0, width, height);
  labels.replaceChildren();
  if (!current || !width) return;
  const box = fit(width, height);
  if (view !== "masks") return paintProposals(context, box, sharp);
  paintMasks(context, box, 2 * sharp);
  placeLabels(box.map((v) => v / sharp));
}

/** Outlines of all proposals, in the colour of the word that they are called, or in none. */
function paintProposals(context, [left, top, width, height], line) {
  context.save();
  context.fillStyle = "rgb(5 10 15 / 0.55)";
  context.fillRect(left, top, width, height);
  const { width: w, height: h } = current.encoded ?? current;
  context.translate(left, top);
  context.scale(width / w, height / h);
  for (const { path, word } of proposals) {
    if (only && word !== only) continue;
    context.lineWidth = ((word ? 2.5 : 1) * line * w) / width;
    context.strokeStyle = word?.colour ?? "rgb(255 255 255 / 0.3)";
    context.stroke(path);
    if (!word) continue;
    context.globalAlpha = 0.25;
    context.fillStyle = word.colour;
    context.fill(path, "evenodd");
    context.globalAlpha = 1;
  }
  context.restore();
}

function paintMasks(context, box, line) {
  const shown = words.filter((w) => w.layers && (!only || w === only));
  const { width, height } = context.canvas;
  if (only) {
    // The rest of the picture goes dark.
    const shade = layer(width, height);
    shade.fillStyle = "rgb(5 10 15 / 0.72)";
    shade.fillRect(...box);
    shade.globalCompositeOperation = "destination-out";
    for (const w of shown) shade.drawImage(w.layers.area, ...box);
    context.drawImage(shade.canvas, 0, 0);
  }
  for (const w of shown) {
    const area = only ? w.layers.area : w.layers.share;
    if (!only) {
      context.globalAlpha = 0.45;
      context.drawImage(area, ...box);
      context.globalAlpha = 1;
    }
    // The outline is the mask moved a little to all sides, less the mask.
    const edge = layer(width, height);
    const [x, y, ...size] = box;
    for (let k = 0; k < 12; k++) edge.drawImage(area, x + line * Math.cos((k * Math.PI) / 6), y + line * Math.sin((k * Math.PI) / 6), ...size);
    edge.globalCompositeOperation = "destination-out";
    edge.drawImage(area, ...box);
    context.save();
    context.beginPath();
    context.rect(...box);
    context.clip();
    context.drawImage(edge.canvas, 0, 0);
    context.restore();
  }
}

function layer(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  return context;
}

/** What was painted, as a file. */
function blobOf({ canvas }, type = "image/png", quality) {
  return new Promise((done) => canvas.toBlob(done, type, quality));
}

/** Writes the names into the masks, and moves those down that would lie on another. */
function placeLabels([left, top, width, height]) {
  const placed = [];
  for (const w of words) {
    if (!w.layers || (only && w !== only)) continue;
    const span = document.createElement("span");
    span.style.setProperty("--colour", w.colour);
    span.textContent = `${w.text.split(",")[0]} ${percent(w.mask.score)}`;
    labels.append(span);
    const bw = span.offsetWidth, bh = span.offsetHeight;
    const [ax, ay] = w.layers.anchor;
    const x = clamp(left + ax * width - bw / 2, 4, stage.clientWidth - bw - 4);
    let y = clamp(top + ay * height - bh / 2, 4, stage.clientHeight - bh - 4);
    for (let tries = 0; tries < 8; tries++) {
      const hit = placed.find((p) => x < p.x + p.w && p.x < x + bw && y < p.y + p.h && p.y < y + bh);
      if (!hit) break;
      y = hit.y + hit.h + 3;
    }
    placed.push({ x, y, w: bw, h: bh });
    span.style.transform = `translate(${x}px, ${y}px)`;
  }
}

const clamp = (v, low, high) => Math.max(low, Math.min(v, high));

new ResizeObserver(draw).observe(stage);

$("save").addEventListener("click", async () => {
  const { width, height } = words.find((w) => w.mask).mask;
  const context = layer(width, height);
  context.drawImage(photo, 0, 0, width, height);
  paintMasks(context, [0, 0, width, height], Math.max(1, Math.hypot(width, height) / 500));
  download(new File([await blobOf(context)], "masks.png"));
});

// ---------------------------------------------------------------------------

/**
 * Makes the next visit need no network; nobody waits for it, so it comes behind the first answer. On one's own machine
 * the page would be yesterday's after every change to it.
 */
function keep() {
  kept ??= (!/^(localhost|127\.|\[::1\])/.test(location.hostname) || url.searchParams.has("keep")) && navigator.serviceWorker?.register("sw.js").catch(() => {});
}

// Addresses may name an example, words, a device and a number of threads:
// ?example=cat&word=cat&word=sofa,couch&device=scalar&threads=1
// A shared link names words and example in its fragment, which no server sees: #words=cat;sofa,couch&example=cat

/** A link may have so many words of so many characters (site/worker has the same limits). */
const MAX_WORDS = 64, MAX_WORD = 200;

/** The words and the example that the fragment names, or null. */
function linked() {
  const named = new URLSearchParams(location.hash.slice(1));
  const list = (named.get("words") ?? "").split(";").map((s) => s.trim()).filter((s) => s && s.length <= MAX_WORD).slice(0, MAX_WORDS);
  return list.length ? { list, thumb: exampleOf(named.get("example")) } : null;
}

const exampleOf = (name) => thumbs.find((t) => t.dataset.src === `examples/${name}.jpg`);

/** This page's address with the words, and the picture if it is an example: others' pictures stay with them. */
function link() {
  const named = new URLSearchParams({ words: words.map((w) => w.text.replaceAll(";", ",")).join(";") });
  const thumb = thumbs.find((t) => t.dataset.src === current?.source);
  if (thumb) named.set("example", thumb.dataset.src.slice("examples/".length, -".jpg".length));
  const address = new URL(location.href);
  address.hash = named;
  return address.href;
}

$("share").addEventListener("click", async () => {
  const address = link();
  // A new fragment loads nothing and adds no step to the way back.
  history.replaceState(null, "", address);
  status.classList.remove("wrong");
  try {
    await navigator.clipboard.writeText(address);
    status.textContent = thumbs.some((t) => t.dataset.src === current?.source) ? "The link is copied. It has the words and names the example photo." : "The link is copied. It has the words, but not your picture.";
  } catch {
    status.textContent = "The link now stands in the address bar; this browser did not let the page copy it.";
  }
});

// Another link, pasted over this one, loads no new page.
addEventListener("hashchange", async () => {
  const to = linked();
  if (!to) return;
  if (to.thumb && to.thumb.dataset.src !== current?.source && !(await setPicture(to.thumb.dataset.src, to.thumb.dataset.alt))) return;
  setWords(to.list);
  ask(0);
});

const shared = linked();
const first = shared?.thumb ?? exampleOf(url.searchParams.get("example")) ?? thumbs[0];
const asked = shared?.list ?? url.searchParams.getAll("word");
setWords(asked.length ? asked : wordsOf(first));
busy("Starting…");
await setPicture(first.dataset.src, first.dataset.alt);
ask(0);
