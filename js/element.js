// <pmp-segment src="photo.jpg" prompts="cat; sofa, couch"></pmp-segment>
//
// Shows a picture with a coloured mask and a button for each prompt, which shows that mask alone. Prompts are separated
// by semicolons, since commas join synonyms. Optional attributes: threshold, weights (a URL), device, alt. Parts for
// styling: image, overlay, list, item, absent, message. All elements of a page that use the same weights share one model.
import { Segmenter, PMPError } from "./index.js";

const COLOURS = [[255, 92, 92], [64, 156, 255], [255, 196, 0], [46, 204, 143], [186, 104, 255], [255, 140, 66], [0, 201, 219], [255, 105, 180]];

// A sheet made here, unlike a <style> element, is allowed under style-src 'self'. A server that renders a page, and so
// imports this file, has neither sheets nor elements.
const sheet = globalThis.CSSStyleSheet && new CSSStyleSheet();
sheet?.replaceSync(`
  :host { display: inline-block; max-width: 100%; }
  .stage { position: relative; display: block; }
  img { display: block; max-width: 100%; height: auto; }
  canvas { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
  ul { list-style: none; margin: .5em 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3em 1em; font: .9em system-ui, sans-serif; min-height: 1.3em; }
  button { font: inherit; color: inherit; background: none; border: 0; border-radius: .4em; padding: .1em .3em; cursor: pointer; }
  button::before { content: ""; display: inline-block; width: .8em; height: .8em; border-radius: 50%; background: var(--colour); margin-inline-end: .4em; }
  button[aria-pressed="true"] { box-shadow: inset 0 0 0 2px var(--colour); }
  button:disabled { opacity: .6; cursor: default; }
`);

/** Segmenters by weights and device; promises, so that two elements never load twice. */
const shared = new Map();

function segmenter(element) {
  const weights = element.getAttribute("weights") ?? undefined;
  const device = element.getAttribute("device") ?? undefined;
  const key = `${weights} ${device}`;
  let entry = shared.get(key);
  if (!entry) {
    const listeners = new Set();
    const promise = Segmenter.load({ weights, device, onprogress: (p) => listeners.forEach((f) => f(p)) });
    promise.catch(() => shared.delete(key)); // the next element may try again
    shared.set(key, (entry = { promise, listeners }));
  }
  return entry;
}

export class PMPSegmentElement extends (globalThis.HTMLElement ?? Object) {
  static observedAttributes = ["src", "prompts", "threshold", "alt"];
  #image = document.createElement("img");
  #canvas = document.createElement("canvas");
  #list = document.createElement("ul");
  #picture = null;
  #encoded = ""; // the src that #picture shows
  #work = null; // AbortController of what goes on
  #planned = false;
  #shown = []; // {path, colour, button} of each mask
  #alone = null; // the one of these that is shown alone
  /** The last answer, as from Picture.segment. */
  result = null;

  constructor() {
    super();
    // Pages that are cross-origin isolated show pictures of other hosts only this way; pixels of
    // others could not be read anyway.
    this.#image.crossOrigin = "anonymous";
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    const stage = document.createElement("div");
    stage.className = "stage";
    this.#image.part = "image";
    this.#canvas.part = "overlay";
    this.#list.part = "list";
    this.#canvas.setAttribute("aria-hidden", "true"); // the list says what it shows
    this.#list.setAttribute("aria-live", "polite");
    stage.append(this.#image, this.#canvas);
    root.append(stage, this.#list);
  }

  get src() { return this.getAttribute("src") ?? ""; }
  set src(v) { this.setAttribute("src", v); }
  get prompts() { return this.getAttribute("prompts") ?? ""; }
  set prompts(v) { this.setAttribute("prompts", v); }

  get threshold() { return this.getAttribute("threshold") ?? ""; }
  set threshold(v) { this.setAttribute("threshold", v); }

  connectedCallback() { this.#plan(); }

  disconnectedCallback() {
    this.#work?.abort();
    this.#picture?.close();
    this.#picture = null;
    this.#encoded = "";
  }

  attributeChangedCallback(name, before, now) {
    if (before === now) return;
    if (name === "alt") this.#image.alt = now ?? "";
    else this.#plan();
  }

  /** Several attributes that change together cause one run. */
  #plan() {
    if (this.#planned || !this.isConnected) return;
    this.#planned = true;
    queueMicrotask(() => {
      this.#planned = false;
      if (this.isConnected) this.#run();
    });
  }

  async #run() {
    this.#work?.abort();
    const { signal } = (this.#work = new AbortController());
    const { src } = this;
    const prompts = this.prompts.split(";").map((p) => p.trim()).filter((p) => p.replaceAll(",", "").trim());
    if (this.#image.getAttribute("src") !== src) {
      if (src) this.#image.src = src;
      else this.#image.removeAttribute("src");
      this.#clear();
    }
    if (!src || !prompts.length) return this.#clear();
    const tell = (p) => signal.aborted || this.#send("progress", p);
    const { promise, listeners } = segmenter(this);
    listeners.add(tell);
    try {
      const seg = await promise;
      if (signal.aborted) return;
      if (this.#encoded !== src) {
        this.#picture?.close();
        this.#picture = null;
        this.#encoded = "";
        const picture = await seg.encode(src, { signal });
        this.#picture = picture;
        this.#encoded = src;
      }
      const result = await this.#picture.segment(prompts, { threshold: this.threshold ? Number(this.threshold) : undefined, signal });
      this.#show(result);
      this.#send("segmented", result);
    } catch (e) {
      if (signal.aborted) return;
      this.#clear();
      const message = Object.assign(document.createElement("li"), { part: "message", textContent: e.message });
      this.#list.append(message);
      this.#send("error", e instanceof PMPError ? e : new PMPError("internal", String(e)));
    } finally {
      listeners.delete(tell);
    }
  }

  #send(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #clear() {
    this.result = null;
    this.#canvas.width = this.#canvas.height = 0;
    this.#list.replaceChildren();
    this.#shown = [];
    this.#alone = null;
  }

  #show(result) {
    this.#clear();
    this.result = result;
    const { width, height, masks } = result;
    Object.assign(this.#canvas, { width, height });
    masks.forEach((mask, i) => {
      const colour = COLOURS[i % COLOURS.length];
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.part = mask.present ? "item" : "item absent";
      button.disabled = !mask.present;
      button.style.setProperty("--colour", `rgb(${colour})`);
      button.textContent = mask.present ? `${mask.text} ${Math.round(100 * mask.score)} %` : `${mask.text}: not in this picture`;
      item.append(button);
      this.#list.append(item);
      if (!mask.present) return;
      const path = new Path2D();
      for (const p of mask.polygons()) {
        path.moveTo(p[0], p[1]);
        for (let k = 2; k < p.length; k += 2) path.lineTo(p[k], p[k + 1]);
        path.closePath();
      }
      const shown = { path, colour, button };
      this.#shown.push(shown);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        this.#alone = this.#alone === shown ? null : shown;
        this.#draw();
      });
    });
    this.#draw();
  }

  #draw() {
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    for (const shown of this.#shown) {
      shown.button.setAttribute("aria-pressed", String(shown === this.#alone));
      if (this.#alone && shown !== this.#alone) continue;
      context.fillStyle = `rgb(${shown.colour} / 0.5)`;
      context.fill(shown.path);
    }
  }
}

globalThis.customElements?.define("pmp-segment", PMPSegmentElement);
