// pmp-segment: a picture and some words become masks, wholly in the browser.
//
//   import { Segmenter } from "pmp-segment";
//   const seg = await Segmenter.load();
//   const picture = await seg.encode(document.querySelector("img"));
//   const { masks } = await picture.segment(["dog", "sofa, couch"]);
//
// This side of the worker checks what comes in, keeps the queue and wraps what
// comes out; index.d.ts has the types.
import { PMPError, aborted, checkAborted } from "./error.js";
import { takePicture } from "./source.js";
import { Mask } from "./mask.js";
import { elsewhere, workerFrom } from "./threads.js";
import { frames } from "./video.js";

export { PMPError, Mask };

/** More prompts than this do not fit into a label map, where 255 means "none". */
const MAX_PROMPTS = 255;

/** A worker that has not said a word after this many ms never will. */
const START = 30_000;

/** A loaded model in a worker of its own. */
export class Segmenter {
  #worker;
  #start; // timer that runs until the worker has said something
  #calls = new Map(); // id → {resolve, reject, onprogress} of what the worker is doing
  #last = Promise.resolve(); // the end of the queue
  #ids = 0;
  #over = new AbortController();
  #dead = null; // the error that every further call gets
  #pictures = new Set();
  #report = { device: "", precision: "", threads: 1, reasons: [], features: [], memory: { engine: 0, kernels: 0 }, weights: 0, times: {}, work: {}, counts: { encode: 0, segment: 0 } };

  /** All that the network can name, if that is a list, as with public checkpoints; null if it takes any words. */
  labels = null;

  /** Use Segmenter.load(). */
  constructor(key, start) {
    if (key !== KEY) throw new TypeError("A Segmenter is made by: await Segmenter.load()");
    try {
      this.#worker = start();
    } catch (e) {
      if (typeof Worker !== "function") throw new PMPError("unsupported", "A service worker cannot start workers. Load the model in a page or a worker.", { cause: e });
      throw new PMPError("unsupported", `The browser did not start a worker (${e.message}). Serve this package from the page's own origin, and allow worker-src 'self'.`, { cause: e });
    }
    this.#worker.onmessage = ({ data }) => this.#answer(data);
    const missing = "Check that worker.js, card.js, error.js, threads.js and wasm_exec.js lie beside index.js, that all come with the same headers, and that the browser knows module workers.";
    // Firefox does not always tell that a file which the worker imports is missing.
    this.#start = setTimeout(() => this.#end(new PMPError("unsupported", `The worker did not start in ${START / 1000} s. ${missing}`)), START);
    this.#worker.onerror = (e) => {
      e.preventDefault?.();
      const why = e.message ? `: ${e.message}` : "";
      this.#end(this.#report.device
        ? new PMPError("device-lost", `The worker stopped${why}. Load a new Segmenter.`)
        : new PMPError("unsupported", `The worker did not start${why}. ${missing}`));
    };
  }

  /**
   * Gets the engine and the weights and prepares them.
   *
   * @param {object} [options]
   * @param {string|URL|FileList|File[]|{manifest: BufferSource|Blob, shards: object}} [options.weights] address of the
   *   folder with manifest.json, or of the manifest itself; or the folder's files, so that nothing is fetched: a
   *   FileList, or the manifest's bytes and, by name, those of the files that it lists. Default: beside this file
   * @param {"auto"|"webgpu"|"simd"|"scalar"} [options.device] "auto" takes the fastest that works: the graphics card if
   *   a trial, which is remembered, was right and not slower than the processor
   * @param {number|"auto"} [options.threads] how many threads share the work; "auto" (default) takes what the machine
   *   has, 8 at most. More than one needs a page that is cross-origin isolated
   * @param {"int8"|"f32"} [options.precision] how products with weights are computed; default "int8", which is faster,
   *   and for a public checkpoint "f32"
   * @param {boolean} [options.cache] keep the weights in the browser's Cache API; default true
   * @param {(p: {stage: string, loaded: number, total: number}) => void} [options.onprogress] loaded and total are bytes
   * @param {AbortSignal} [options.signal]
   * @returns {Promise<Segmenter>}
   * @throws {PMPError} aborted, network, integrity, format, out-of-memory, unsupported, bad-input
   */
  static async load({ weights, device = "auto", threads = "auto", precision, cache = true, onprogress, signal } = {}) {
    checkAborted(signal);
    if (!["auto", "webgpu", "simd", "scalar"].includes(device)) {
      throw new PMPError("bad-input", `There is no device "${device}"; take "auto", "webgpu", "simd" or "scalar".`);
    }
    if (threads !== "auto" && !(Number.isInteger(threads) && threads > 0)) {
      throw new PMPError("bad-input", `threads must be "auto" or a whole number from 1 on, not ${String(threads)}.`);
    }
    if (![undefined, "int8", "f32"].includes(precision)) {
      throw new PMPError("bad-input", `There is no precision "${precision}"; take "int8" or "f32".`);
    }
    const start = await workerStarter();
    checkAborted(signal);
    const seg = new Segmenter(KEY, start);
    try {
      const args = { weights: weightsOf(weights), device, threads, precision, cache };
      const value = await seg.#call("load", args, { signal, onprogress });
      Object.assign(seg.#report.times, value.times);
      seg.labels = value.labels;
      return seg;
    } catch (e) {
      seg.close();
      throw e;
    }
  }

  /**
   * Looks at a picture once; what comes back can be asked for any words.
   *
   * @param {import("./index.d.ts").PictureSource} source
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Picture>}
   * @throws {PMPError} aborted, bad-input, network (for a URL), out-of-memory, device-lost
   */
  async encode(source, { signal } = {}) {
    this.#check(signal);
    const { args, transfer } = await takePicture(source, signal);
    const { width, height } = args;
    let value;
    try {
      value = await this.#call("encode", args, {
        signal,
        transfer,
        // The worker had begun when the page lost interest.
        late: ({ picture }) => this.#call("close", { picture }).catch(() => {}),
      });
    } catch (e) {
      args.bitmap?.close(); // does nothing if the worker has it
      throw e;
    }
    this.#did("encode", value);
    const picture = new Picture(KEY, width, height, {
      segment: (args, signal) => this.#segment("segment", { ...args, picture: value.picture }, signal),
      proposals: (args, signal) => this.#segment("proposals", { ...args, picture: value.picture }, signal),
      overlay: (args, signal) => this.#segment("overlay", { ...args, picture: value.picture }, signal),
      close: () => {
        this.#pictures.delete(picture);
        if (!this.#dead) this.#call("close", { picture: value.picture }).catch(() => {});
      },
    });
    this.#pictures.add(picture);
    return picture;
  }

  async #segment(how, args, signal) {
    this.#check(signal);
    const value = await this.#call(how, args, { signal, late: ({ bitmap }) => bitmap?.close() });
    this.#did("segment", value);
    return value;
  }

  /** Notes in the report what a call took. */
  #did(what, { times, work }) {
    this.#report.counts[what]++;
    Object.assign(this.#report.times, times);
    Object.assign(this.#report.work, work);
  }

  /**
   * Answers for a video as it plays: encodes its newest frame, segments it, and takes the then newest one. Frames that
   * come meanwhile are dropped rather than queued.
   *
   * @param {HTMLVideoElement} video
   * @param {string[]|string|(() => string[]|string)} prompts a function is asked before every frame
   * @param {object} [options] as for Picture.segment
   * @returns {AsyncGenerator<SegmentResult & {time: number, dropped: number}>} time is the frame's, in seconds
   * @throws {PMPError} aborted, bad-input, out-of-memory, device-lost
   */
  async *video(video, prompts, options = {}) {
    const { signal } = options;
    for await (const frame of frames(video, signal)) {
      if (!video.videoWidth) continue; // between two sources
      const picture = await this.encode(video, { signal });
      let result;
      try {
        result = await picture.segment(typeof prompts === "function" ? prompts() : prompts, options);
      } finally {
        picture.close();
      }
      yield { ...result, ...frame };
    }
  }

  /**
   * What runs and why: device, precision, threads, the devices that were not taken and the reasons, what is used of
   * a graphics card, memory in bytes, the last times by stage in ms, what they took in dispatches and bytes, and how
   * often was encoded and segmented.
   */
  report() {
    return structuredClone(this.#report);
  }

  /** Ends the worker and gives everything back. Calls that are waiting get "aborted". */
  close() {
    this.#end(new PMPError("aborted", "The Segmenter was closed."));
  }

  #check(signal) {
    if (this.#dead) throw this.#dead;
    checkAborted(signal);
  }

  /** Puts a call at the end of the queue. */
  #call(call, args, { signal, transfer = [], onprogress, late } = {}) {
    const turn = this.#last;
    const promise = new Promise((resolve, reject) => {
      const id = ++this.#ids;
      let running = false;
      const stop = () => {
        reject(aborted(signal));
        if (running) this.#worker.postMessage({ cancel: id });
      };
      signal?.addEventListener("abort", stop, { once: true });
      this.#last = turn.then(() => {
        if (signal?.aborted || this.#dead) {
          reject(this.#dead ?? aborted(signal));
          return;
        }
        running = true;
        return new Promise((done) => {
          const finish = (settle, ignored) => (v) => {
            this.#calls.delete(id);
            signal?.removeEventListener("abort", stop);
            done();
            if (signal?.aborted) ignored?.(v);
            settle(v);
          };
          this.#calls.set(id, { resolve: finish(resolve, late), reject: finish(reject), onprogress: (p) => signal?.aborted || onprogress?.(p) });
          try {
            this.#worker.postMessage({ id, call, args }, transfer);
          } catch (e) {
            this.#calls.get(id).reject(new PMPError("bad-input", `The picture's pixels may not be read (${e.message}). If it comes from another origin, load it with crossorigin="anonymous" and let that host allow it.`, { cause: e }));
          }
        });
      });
    });
    return promise;
  }

  #answer({ id, value, error, progress, memory, loaded, lock }) {
    clearTimeout(this.#start);
    if (lock) this.#watch(lock);
    const call = this.#calls.get(id);
    if (!call) return;
    if (progress) return call.onprogress(progress);
    if (memory) this.#report.memory = memory;
    if (loaded) {
      const { device, precision, threads, reasons, features = [], bytes: weights } = loaded;
      Object.assign(this.#report, { device, precision, threads, reasons, features, weights });
    }
    if (error) {
      const e = new PMPError(error.code, error.message);
      call.reject(e);
      if (error.fatal) this.#end(e);
    } else {
      call.resolve(value);
    }
  }

  /** Waits for a lock that the worker holds as long as it lives. */
  #watch(lock) {
    const lost = () => this.#end(new PMPError("device-lost", "The browser ended the worker, most likely for lack of memory. Load a new Segmenter, and use smaller pictures if this happens again."));
    navigator.locks.request(lock, { signal: this.#over.signal }, lost).catch(() => {});
  }

  #end(error) {
    if (this.#dead) return;
    this.#dead = error;
    this.#over.abort();
    clearTimeout(this.#start);
    this.#worker?.terminate();
    for (const { reject } of [...this.#calls.values()]) reject(error);
    this.#calls.clear();
    for (const p of this.#pictures) p.close();
  }
}

/** A picture that the model has looked at. Made by Segmenter.encode. */
export class Picture {
  #do;
  #closed = false;

  constructor(key, width, height, actions) {
    if (key !== KEY) throw new TypeError("A Picture is made by: await segmenter.encode(source)");
    this.#do = actions;
    /** Sides in pixels. */
    this.width = width;
    this.height = height;
  }

  /**
   * Finds the masks for some words. The picture is not encoded again.
   *
   * @param {string[]|string} prompts one string a mask; commas join synonyms: "sofa, couch"
   * @param {object} [options]
   * @param {number} [options.threshold] how sure a pixel must be, 0 to 1; default: what the model was tuned to
   * @param {boolean} [options.labelMap] also make the label map; default true
   * @param {boolean} [options.guided] let the mask decoder read the prompts; default true. Without it they only name
   *   proposals that the picture alone gave, for comparing
   * @param {AbortSignal} [options.signal]
   * @throws {PMPError} aborted, bad-input, out-of-memory, device-lost
   */
  async segment(prompts, { threshold, labelMap = true, guided = true, signal } = {}) {
    this.#check();
    const { width, height } = this;
    const args = { prompts: checkPrompts(prompts), threshold: checkThreshold(threshold), labelMap, guided: Boolean(guided), width, height };
    const { masks, labels } = await this.#do.segment(args, signal);
    return { masks: masks.map((m) => new Mask(m, width, height)), labelMap: labels ?? null, width, height };
  }

  /**
   * All mask proposals, among which the answers of segment are found: one for each query of the mask decoder, cut where
   * a pixel is more likely in it than not. `text` is the likeliest prompt, `score` its probability against the other
   * prompts and void.
   *
   * @param {string[]|string} prompts as for segment
   * @param {{guided?: boolean, signal?: AbortSignal}} [options] guided as for segment
   * @returns {Promise<Mask[]>}
   * @throws {PMPError} aborted, bad-input, out-of-memory, device-lost
   */
  async proposals(prompts, { guided = true, signal } = {}) {
    this.#check();
    const { width, height } = this;
    const { proposals } = await this.#do.proposals({ prompts: checkPrompts(prompts), guided: Boolean(guided), width, height }, signal);
    return proposals.map((m) => new Mask(m, width, height));
  }

  /**
   * Finds the same masks and makes one picture of them to draw over the original, transparent where nothing was found.
   * With a graphics card everything stays there, so this is the quickest way to show what was found.
   *
   * @param {string[]|string} prompts as for segment
   * @param {object} [options]
   * @param {[number, number, number, number?][]} [options.colors] red, green, blue and alpha, 0 to 255, for each
   *   prompt; with fewer colours than prompts they come again
   * @param {number} [options.threshold]
   * @param {AbortSignal} [options.signal]
   * @returns {Promise<{bitmap: ImageBitmap, answers: {text: string, score: number, present: boolean}[]}>}
   * @throws {PMPError} aborted, bad-input, out-of-memory, device-lost
   */
  async overlay(prompts, { colors = COLORS, threshold, signal } = {}) {
    this.#check();
    const { width, height } = this;
    const args = { prompts: checkPrompts(prompts), threshold: checkThreshold(threshold), palette: paletteOf(colors), width, height };
    const { bitmap, answers } = await this.#do.overlay(args, signal);
    return { bitmap, answers };
  }

  #check() {
    if (this.#closed) throw new PMPError("bad-input", "This picture is closed; encode it again.");
  }

  /** Gives back the memory of this picture. Masks that were made stay good. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#do.close();
  }
}

const COLORS = [[255, 92, 92, 140], [64, 156, 255, 140], [255, 196, 0, 140], [46, 204, 143, 140], [186, 104, 255, 140], [255, 140, 66, 140]];

/** A word for each label, the bytes of a pixel in order. The last one, for no label, stays transparent. */
function paletteOf(colors) {
  const palette = new Uint32Array(MAX_PROMPTS + 1);
  const bytes = new Uint8ClampedArray(palette.buffer, 0, 4 * MAX_PROMPTS);
  if (!(Array.isArray(colors) && colors.length > 0 && colors.every((c) => [3, 4].includes(c?.length) && [...c].every(Number.isFinite)))) {
    throw new PMPError("bad-input", "colors must be a list of colours, each [red, green, blue] or [red, green, blue, alpha] from 0 to 255.");
  }
  for (let i = 0; i < MAX_PROMPTS; i++) {
    const [r, g, b, a = 255] = colors[i % colors.length];
    bytes.set([r, g, b, a], 4 * i);
  }
  return palette;
}

// Only this module may call the constructors.
const KEY = Symbol();

/** Bundlers look for exactly this expression; Node, which has no Worker, takes another way that they must not follow. */
async function workerStarter() {
  const worker = "worker.js";
  if (typeof Worker === "function" || !globalThis.process?.versions?.node) {
    return elsewhere(import.meta.url)
      ? () => workerFrom(new URL(worker, import.meta.url))
      : () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  }
  const node = "./node.js";
  const { NodeWorker } = await import(/* @vite-ignore */ /* webpackIgnore: true */ node);
  return () => new NodeWorker(new URL(worker, import.meta.url));
}

/** What the worker takes weights from: {url} of the manifest, or {files}, Blobs by name. */
function weightsOf(weights) {
  const wrong = (cause) => new PMPError("bad-input", "weights must be an address, a FileList, or {manifest, shards} with the bytes of manifest.json and, by name, of the files that it lists.", { cause });
  if (weights === undefined || typeof weights === "string" || weights instanceof URL) return { url: manifestURL(weights) };
  const named = (list) => [...list].map((file) => [file.name, file]);
  let entries;
  try {
    if (Symbol.iterator in weights) {
      entries = named(weights);
    } else {
      const { manifest, shards } = weights;
      entries = [["manifest.json", manifest], ...(Symbol.iterator in shards ? named(shards) : Object.entries(shards))];
    }
  } catch (e) {
    throw wrong(e);
  }
  const bytes = (v) => v instanceof Blob || v instanceof ArrayBuffer || ArrayBuffer.isView(v);
  if (!entries.every(([name, v]) => typeof name === "string" && bytes(v))) throw wrong();
  const blob = (v) => new Blob([ArrayBuffer.isView(v) ? new Uint8Array(v.buffer, v.byteOffset, v.byteLength).slice() : v]); // shared memory, too
  return { files: Object.fromEntries(entries.map(([name, v]) => [name, v instanceof Blob ? v : blob(v)])) };
}

function manifestURL(weights = new URL(/* @vite-ignore */ "./weights/", import.meta.url)) {
  let url;
  try {
    url = new URL(weights, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch (e) {
    throw new PMPError("bad-input", `weights must be a URL, not ${String(weights)}.`, { cause: e });
  }
  if (url.pathname.endsWith(".json")) return url.href;
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return new URL("manifest.json", url).href;
}

function checkPrompts(prompts) {
  const list = typeof prompts === "string" ? [prompts] : [...(prompts ?? [])];
  if (list.length === 0) throw new PMPError("bad-input", 'There is no prompt. Give at least one word, like segment(["dog"]).');
  if (list.length > MAX_PROMPTS) {
    throw new PMPError("bad-input", `${list.length} prompts are too many; at most ${MAX_PROMPTS} fit into one call. Call segment several times: the picture is not encoded again.`);
  }
  return list.map((p) => {
    if (typeof p !== "string") throw new PMPError("bad-input", `A prompt must be a string, not ${typeof p}.`);
    if (!p.split(",").some((phrase) => phrase.trim())) throw new PMPError("bad-input", "A prompt is empty. Leave it out, or write a word.");
    return p;
  });
}

function checkThreshold(threshold) {
  if (threshold === undefined) return undefined;
  if (!(threshold > 0 && threshold < 1)) throw new PMPError("bad-input", `threshold must lie between 0 and 1, not ${threshold}.`);
  return threshold;
}
