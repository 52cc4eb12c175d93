// The worker that holds the engine. It answers one message at a time; the page's
// side (index.js) keeps the queue. A message is {id, call, args} or {cancel: id}, an
// answer {id, value, loaded}, {id, error: {code, message, fatal}} or {id, progress}.
import "./wasm_exec.js";
import { findCard } from "./card.js";
import { PMPError, aborted, checkAborted } from "./error.js";
import { startThreads, threadsFor } from "./threads.js";

/** Rows of pixels are read from the canvas in pieces of about this many pixels. */
const PIECE = 1 << 22;
/** Files on the way at the same time. */
const DOWNLOADS = 3;
/** How often a file is asked for again after the network failed, and how long to wait before, in ms. */
const WAITS = [400, 1500];
const CACHE = "pmp-weights";
/** What people who use a bundler meet first: bundlers do not carry the weights along. */
const WHERE = 'If a bundler packed the page, copy the folder node_modules/pmp-segment/weights to the site and pass its address: Segmenter.load({weights: "/weights/"}).';

const controllers = new Map();
/** What Go exports, see wasm/calls.go; null before load and after the engine has stopped. */
let go = null;
/** The engine's WebAssembly memory, and that of the kernels, which pure Go does not have. */
let engineMemory = null, kernelMemory = null;
/** What load was called with, and what it found; null after a graphics card was lost. */
let settings = null, loaded = null;
/** Whether a card was not lost when it drew on a canvas, as those made of software are. */
let canvasWorks = true;
/** Ends the tasks that wait for an engine which has stopped. */
let stopped = null;

self.onmessage = async ({ data: { id, call, args, cancel } }) => {
  if (cancel !== undefined) {
    controllers.get(cancel)?.abort();
    return;
  }
  const controller = new AbortController();
  controllers.set(id, controller);
  try {
    const transfer = [];
    const value = await calls[call](args, {
      signal: controller.signal,
      transfer,
      progress: (p) => self.postMessage({ id, progress: p }),
    });
    self.postMessage({ id, value, memory: memoryUse(), loaded }, transfer);
  } catch (e) {
    const error = e instanceof PMPError ? e : new PMPError("internal", String(e?.message ?? e));
    self.postMessage({ id, error: { code: error.code, message: error.message, fatal: settings !== null && !go } });
  } finally {
    controllers.delete(id);
  }
};

self.postMessage({ id: 0 }); // all that this file imports is there

// A browser that ends a worker, for lack of memory say, tells nobody. But it gives back the locks that the worker held,
// so the page waits for this one.
const lock = `pmp-${Math.random()}`;
navigator.locks?.request(lock, () => {
  self.postMessage({ id: 0, lock });
  return new Promise(() => {});
}).catch(() => {}); // pages in a sandbox have no locks

/** Calls a function of the engine; its errors become PMPErrors. */
function engine(name, ...args) {
  return answerOf(call(name, args));
}

/** Calls one that answers later. */
async function task(name, ...args) {
  return answerOf(await new Promise((resolve, reject) => {
    stopped = reject;
    call(name, [resolve, ...args]);
  }));
}

function call(name, args) {
  if (!go) throw new PMPError("device-lost", "The engine has stopped. Load a new Segmenter.");
  let out;
  try {
    out = go[name](...args);
  } catch (e) {
    // Go's own runtime gives up only when memory is exhausted or on a bug of ours.
    go = null;
    throw new PMPError("device-lost", `The engine stopped (${e.message}). Load a new Segmenter, and use smaller pictures if this happens again.`);
  }
  if (out === undefined) throw engineStopped();
  return out;
}

function engineStopped() {
  go = null;
  return new PMPError("device-lost", "The engine stopped, most likely for lack of memory. Load a new Segmenter and use a smaller picture.");
}

function answerOf(out) {
  if (!out?.error) return out;
  if (out.error.lost) loaded = null;
  throw Object.assign(new PMPError(out.error.code, out.error.message), { lost: out.error.lost });
}

function memoryUse() {
  return { engine: engineMemory?.buffer.byteLength ?? 0, kernels: kernelMemory?.buffer.byteLength ?? 0 };
}

const calls = {
  /** Gets engine and weights, and brings the weights to a device. */
  async load(options, context) {
    settings = options;
    return bring(options.device, context);
  },

  /** Puts a picture's pixels where the kernels read them, and encodes them. */
  async encode(args, context) {
    try {
      await ready(context);
      try {
        return await encode(args);
      } catch (e) {
        if (!e.lost) throw e;
        await ready(context); // the picture is still here, so another device can have it
        return await encode(args);
      }
    } finally {
      args.bitmap?.close();
    }
  },

  /** Finds the masks. They leave as run lengths, which are small and quick to paint. */
  async segment({ picture, prompts, threshold, guided, width, height, labelMap }, { transfer }) {
    const times = {};
    const time = stopwatch(times);
    const { answers: masks, work } = await task("segment", picture, prompts, threshold, guided);
    time("segment");
    const bytes = new Uint8Array(width * height);
    for (const m of masks) Object.assign(m, { runs: new Uint32Array(0), area: 0, bbox: [0, 0, 0, 0] });
    await task("masks", picture, bytes, (i) => Object.assign(masks[i], measure(bytes, width)));
    for (const m of masks) transfer.push(m.runs.buffer);
    let labels;
    if (labelMap) {
      labels = bytes; // no longer needed for masks
      await task("labels", picture, labels);
      transfer.push(labels.buffer);
    }
    time("masks");
    return { masks, labels, times, work: { segment: work } };
  },

  /** Finds the mask proposals that the answers are made of. */
  async proposals({ picture, prompts, guided, width, height }, { transfer }) {
    const times = {};
    const time = stopwatch(times);
    const { work } = await task("segment", picture, prompts, undefined, guided);
    time("segment");
    const bytes = new Uint8Array(width * height);
    const proposals = [];
    await task("proposals", picture, bytes, (prompt, chance) => proposals.push({ text: prompts[prompt], score: chance, present: true, ...measure(bytes, width) }));
    for (const p of proposals) transfer.push(p.runs.buffer);
    time("masks");
    return { proposals, times, work: { segment: work } };
  },

  /** Finds the masks and makes one picture of them, on the graphics card if that has them. */
  async overlay({ picture, prompts, threshold, palette, width, height }, { transfer }) {
    const times = {};
    const time = stopwatch(times);
    const { answers, work } = await task("segment", picture, prompts, threshold, true);
    time("segment");
    const canvas = canvasWorks && typeof OffscreenCanvas === "function" ? new OffscreenCanvas(1, 1) : null;
    let pixels;
    const drawn = await task("overlay", picture, palette, canvas, () => (pixels = new Uint8Array(4 * width * height))).catch((e) => {
      canvasWorks &&= !e.lost;
      throw e;
    });
    const bitmap = drawn ? canvas.transferToImageBitmap() : await createImageBitmap(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height));
    transfer.push(bitmap);
    time("overlay");
    return { answers, bitmap, times, work: { segment: work } };
  },

  async close({ picture }) {
    if (go) await task("close", picture);
  },
};

/** Gets what is missing of engine and weights, and brings the weights to a device. */
async function bring(device, { signal, progress }) {
  const { weights, precision, threads, cache } = settings;
  const times = {};
  const time = stopwatch(times);
  progress({ stage: "download", loaded: 0, total: 0 });
  const getting = weights.files ? ownManifest(weights.files) : getManifest(weights.url, cache, signal);
  const [manifest, card] = await Promise.all([
    getting,
    device === "auto" || device === "webgpu" ? findCard({ precision, threads: threadsFor(threads).threads, weights: weights.url }) : {},
    go ?? startEngine(getting, signal),
  ]);
  time("engine");
  // Threads start while the weights are on their way, unless a graphics card will most likely do the work.
  let starting = null;
  const pool = () => (starting ??= startPool(device, threads));
  if (device !== "webgpu" && card.remembered?.device !== "webgpu") pool();
  const files = readManifest(manifest);
  await getFiles(files, weights.files ? ownFile(weights.files) : await fetchedFile(files, manifest.url, cache), signal, progress);
  time("weights");
  checkAborted(signal);
  const total = files.reduce((sum, f) => sum + f.size, 0);
  progress({ stage: "prepare", loaded: total, total });
  await breath();
  await starting;
  time("threads");
  const { adapter = null, noCard = "", remembered = null } = card;
  const options = { precision, adapter, noCard, remembered, pool: async () => (await pool()).pool };
  const { memory, remember, labels, ...found } = await task("load", device, options);
  if (remember) await card.remember(remember);
  const unused = starting && (await starting);
  if (unused?.reason && found.device.startsWith("simd")) found.reasons.push({ device: "threads", reason: unused.reason });
  kernelMemory = memory ?? null;
  time("prepare");
  progress({ stage: "ready", loaded: total, total });
  loaded = { ...found, times, bytes: total };
  return { times, labels };
}

/** Loads another device after the graphics card was lost, which may come back for a page that wants no other. */
async function ready({ signal }) {
  if (!loaded) await bring(settings.device === "webgpu" ? "webgpu" : "cpu", { signal, progress: () => {} });
}

async function encode({ bitmap, pixels, width, height }) {
  const times = {};
  const time = stopwatch(times);
  const { id, address, card } = await task("begin", width, height);
  try {
    time("begin");
    if (kernelMemory) {
      // The buffer is asked for only now, since begin may have made the memory grow.
      const target = new Uint8Array(kernelMemory.buffer, address, 4 * width * height);
      if (pixels) target.set(pixels);
      else readBitmap(bitmap, width, height, (offset, piece) => target.set(piece, offset));
    } else if (!(card && bitmap && (await task("draw", id, bitmap)))) {
      let all = pixels;
      if (!all) {
        all = new Uint8Array(4 * width * height);
        readBitmap(bitmap, width, height, (offset, piece) => all.set(piece, offset));
      }
      await task("pixels", id, all);
    }
    time("pixels");
    const { work } = await task("encode", id);
    time("encode");
    return { picture: id, times, work: { encode: work } };
  } catch (e) {
    if (go && !e.lost) await task("close", id);
    throw e;
  }
}

/** Writes the time since the last call, in ms, into `times`. */
function stopwatch(times) {
  let last = performance.now();
  return (name) => {
    const now = performance.now();
    times[name] = now - last;
    last = now;
  };
}

/** Lets messages that are already on their way arrive. */
const breath = () => new Promise((r) => setTimeout(r, 0));

/** Reads the pixels of a bitmap as RGBA, in pieces, so that no second whole copy is needed. */
function readBitmap(bitmap, width, height, put) {
  const rows = Math.max(1, Math.min(height, Math.floor(PIECE / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false, colorSpace: "srgb" });
  if (!context) throw new PMPError("out-of-memory", "The browser gave no canvas to read the picture with. Close other pictures or use a smaller one.");
  for (let y = 0; y < height; y += rows) {
    const n = Math.min(rows, height - y);
    // What is transparent in the picture counts as white.
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, n);
    context.drawImage(bitmap, 0, -y);
    put(4 * y * width, context.getImageData(0, 0, width, n, { colorSpace: "srgb" }).data);
  }
}

/**
 * A mask's area, its box, and the lengths of its runs of 0 and 1, in turn and starting with 0,
 * row by row. indexOf is the fastest way to look for a byte that a browser has.
 */
function measure(bytes, width) {
  let runs = new Uint32Array(1024);
  let n = 0, area = 0, left = width, right = 0, top = 0, bottom = 0;
  for (let at = 0, value = 0; at < bytes.length; value = 1 - value) {
    let end = bytes.indexOf(1 - value, at);
    if (end < 0) end = bytes.length;
    if (value) {
      const first = Math.floor(at / width), last = Math.floor((end - 1) / width);
      if (!area) top = first;
      bottom = last + 1;
      // A run that goes on in the next row touches both sides.
      left = first < last ? 0 : Math.min(left, at - first * width);
      right = first < last ? width : Math.max(right, end - first * width);
      area += end - at;
    }
    if (n === runs.length) {
      const more = new Uint32Array(2 * n);
      more.set(runs);
      runs = more;
    }
    runs[n++] = end - at;
    at = end;
  }
  return { runs: runs.slice(0, n), area, bbox: area ? [left, top, right - left, bottom - top] : [0, 0, 0, 0] };
}

// ---------------------------------------------------------------------------
// The engine

/** Starts as many threads as are wanted and possible; one needs no pool. It does not fail. */
async function startPool(device, wanted) {
  const { threads, reason } = device === "scalar" ? { threads: 1 } : threadsFor(wanted);
  if (threads === 1) return { pool: null, reason };
  try {
    const module = engine("kernels");
    if (!module) return { pool: null, reason: "one thread runs, because this browser has no WebAssembly threads" };
    return { pool: await startThreads({ module, threads }), reason };
  } catch (e) {
    return { pool: null, reason: `one thread runs, because the others did not start: ${e.message}` };
  }
}

/** Starts the engine that a manifest needs. That of the package's own weights is on its way before the manifest is there. */
async function startEngine(manifest, signal) {
  let url = new URL("./engine.wasm", import.meta.url);
  let asked = get(url, { signal });
  asked.catch(() => {}); // which is looked at below
  if (isBase(await manifest.catch(() => null))) {
    asked.then((r) => r.body.cancel(), () => {});
    url = new URL("./engine-bases.wasm", import.meta.url);
    asked = get(url, { signal });
  }
  const response = await asked;
  const runtime = new self.Go();
  let instance;
  try {
    if (response.headers.get("content-type") === "application/wasm") {
      ({ instance } = await WebAssembly.instantiateStreaming(response, runtime.importObject));
    } else {
      // Some hosts send another type, which the streaming call refuses.
      const bytes = await response.arrayBuffer();
      if (new DataView(bytes).getUint32(0) !== 0x0061736d) {
        throw new PMPError("format", `${url} is not WebAssembly: the host sent something else, perhaps a page for "not found".`);
      }
      ({ instance } = await WebAssembly.instantiate(bytes, runtime.importObject));
    }
  } catch (e) {
    if (e instanceof PMPError) throw e;
    checkAborted(signal);
    if (e instanceof WebAssembly.CompileError && /Content.Security|unsafe-eval|CSP/i.test(e.message)) {
      throw new PMPError("unsupported", "The page's Content-Security-Policy forbids WebAssembly. Add 'wasm-unsafe-eval' to script-src, on the worker's response too.", { cause: e });
    }
    if (e instanceof RangeError) throw new PMPError("out-of-memory", `The engine could not get its memory (${e.message}). Close other tabs.`, { cause: e });
    throw new PMPError(e instanceof TypeError ? "network" : "unsupported", `The engine ${url} could not be started: ${e.message}`, { cause: e });
  }
  const host = (self.pmpHost = {});
  // By the time run returns its promise, Go's main has filled in its functions.
  runtime.run(instance).catch(() => {}).finally(() => stopped?.(engineStopped()));
  engineMemory = instance.exports.mem;
  go = host;
}

// ---------------------------------------------------------------------------
// Files

/** fetch, with errors that say what to do, and tried again where that helps. */
async function get(url, { signal, waits = WAITS, ...options }) {
  for (let attempt = 0; ; attempt++) {
    let response, cause;
    try {
      response = await fetch(url, { signal, ...options });
      if (response.ok) return response;
    } catch (e) {
      checkAborted(signal);
      cause = e;
    }
    const hopeless = response && response.status < 500 && response.status !== 429;
    if (hopeless || attempt >= waits.length) {
      const what = response ? `the host answered ${response.status}` : cause.message;
      throw new PMPError("network", `${url} could not be fetched (${what}). Check the connection and that the file is there.`, { cause });
    }
    await pause(waits[attempt], signal);
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(aborted(signal)); }, { once: true });
  });
}

/** The cache, or null where there is none (private windows, plain http) or the page does not want it. */
async function openCache(wanted) {
  try {
    return wanted ? await caches.open(CACHE) : null;
  } catch {
    return null;
  }
}

/** Whether a manifest is of a network of a public checkpoint. What else may be wrong with it, the engine tells. */
function isBase(manifest) {
  try {
    const { arch } = JSON.parse(new TextDecoder().decode(manifest.bytes));
    return typeof arch === "string" && arch !== "pmp-s";
  } catch {
    return false;
  }
}

function readManifest({ url, bytes }) {
  try {
    return engine("open", bytes);
  } catch (e) {
    if (e.code === "format") throw new PMPError("format", `${url} is not a manifest of PMP weights: ${e.message}. ${WHERE}`);
    throw e;
  }
}

/** The manifest comes from the network so that updates are seen, and from the cache when offline. */
async function getManifest(url, cache, signal) {
  const store = await openCache(cache);
  const kept = await store?.match(url).catch(() => null);
  try {
    // Who has one from an earlier visit does not wait for a network that is not there.
    const response = await get(url, { signal, cache: "no-cache", ...(kept && { waits: [] }) });
    const bytes = new Uint8Array(await response.arrayBuffer());
    await store?.put(url, new Response(bytes)).catch(() => {});
    return { url, bytes };
  } catch (e) {
    if (kept && e.code === "network") return { url, bytes: new Uint8Array(await kept.arrayBuffer()) };
    checkAborted(signal);
    throw new PMPError("network", e instanceof PMPError ? `${e.message} ${WHERE}` : `${url} could not be read (${e.message}).`, { cause: e });
  }
}

/** Gets all files, a few at a time, by a function that gives each to the engine as soon as it is there. */
async function getFiles(files, getFile, signal, progress) {
  const total = files.reduce((sum, f) => sum + f.size, 0);
  const loaded = new Map();
  let told = 0;
  const tell = (file, bytes) => {
    loaded.set(file, bytes);
    const sum = [...loaded.values()].reduce((a, b) => a + b, 0);
    // A message for each network packet would be too many.
    if (sum === total || sum < told || sum - told > total / 200) progress({ stage: "download", loaded: (told = sum), total });
  };
  const stop = new AbortController();
  const all = AbortSignal.any ? AbortSignal.any([signal, stop.signal]) : signal;
  const waiting = [...files];
  const one = async () => {
    for (let file; (file = waiting.shift()); ) await getFile(file, all, (n) => tell(file, n));
  };
  try {
    await Promise.all(Array.from({ length: DOWNLOADS }, one));
  } catch (e) {
    waiting.length = 0;
    stop.abort(); // the other files of this load
    checkAborted(signal);
    throw e;
  }
}

/** Files that the page gave. */
async function ownManifest(files) {
  const file = files["manifest.json"];
  if (!file) throw new PMPError("bad-input", "There is no manifest.json among the weights. Give all files of their folder.");
  return { url: "manifest.json", bytes: new Uint8Array(await file.arrayBuffer()) };
}

function ownFile(files) {
  return async (file, signal, tell) => {
    const own = files[file.name];
    if (!own) throw new PMPError("bad-input", `${file.name}, which the manifest lists, is not among the weights. Give all files of their folder.`);
    await add(file, await body(file, new Response(own), signal, tell), signal);
  };
}

/**
 * Files from a host. One that was checked is kept in the cache, so that a broken download goes on with those that are
 * missing; those of older versions are dropped.
 */
async function fetchedFile(files, base, cache) {
  const store = await openCache(cache);
  tidy(store, base, files);
  return (file, signal, tell) => getFile(file, base, store, signal, tell);
}

async function getFile(file, base, store, signal, tell) {
  const url = new URL(file.name, base).href;
  const key = `${url}?sha256=${file.sha256}`;
  try {
    const kept = await store?.match(key);
    if (kept) {
      await add(file, await body(file, kept, signal, () => {}), signal);
      tell(file.size);
      return;
    }
  } catch {
    checkAborted(signal);
    store.delete(key).catch(() => {}); // damaged in the cache: get it anew
  }
  checkAborted(signal);
  let address;
  try {
    address = await add(file, await getWhole(file, url, { signal }, tell), signal);
  } catch (e) {
    if (!["integrity", "network"].includes(e.code)) throw e;
    checkAborted(signal);
    // What lies in the browser's HTTP cache may be damaged or old: ask the host itself, once.
    tell(0);
    address = await add(file, await getWhole(file, url, { signal, cache: "reload" }, tell), signal);
  }
  await store?.put(key, new Response(new Uint8Array(engineMemory.buffer, address, file.size))).catch(() => {}); // a full disk is no reason to fail
}

/** Lets the engine check the file that lies where it wanted it. */
async function add(file, address, signal) {
  // Browsers hash on secure pages only; elsewhere the engine does it, at a tenth of the speed.
  const hash = await globalThis.crypto?.subtle?.digest("SHA-256", new Uint8Array(engineMemory.buffer, address, file.size));
  checkAborted(signal);
  engine("add", file.name, hash && new Uint8Array(hash));
  return address;
}

/** Gets a file from its host. Where a connection breaks the next one goes on, as long as each brings something. */
async function getWhole(file, url, options, tell) {
  for (let at = 0; ; ) {
    const response = await get(url, at ? { ...options, headers: { range: `bytes=${at}-` } } : options);
    try {
      return await body(file, response, options.signal, tell, response.status === 206 ? at : 0);
    } catch (e) {
      if (!(e.read > at)) throw e;
      at = e.read;
    }
  }
}

/** Reads a response, from byte n on, to where the engine wants the file, which has the size that the manifest names. */
async function body(file, response, signal, tell, n = 0) {
  const address = engine("room", file.name);
  try {
    const reader = response.body.getReader();
    for (let part; !(part = await reader.read()).done; n += part.value.length) {
      if (n + part.value.length > file.size) {
        reader.cancel().catch(() => {});
        throw new PMPError("integrity", `${file.name} is longer than the manifest says (${file.size} bytes). The files on the host do not belong together: upload them again.`);
      }
      // A memory that has grown has another buffer.
      new Uint8Array(engineMemory.buffer, address + n).set(part.value);
      tell(n + part.value.length);
    }
  } catch (e) {
    checkAborted(signal);
    if (e instanceof PMPError) throw e;
    const broken = new PMPError("network", `${file.name} broke off after ${n} of ${file.size} bytes (${e.message}). Try again; what is complete is kept.`, { cause: e });
    throw Object.assign(broken, { read: n });
  }
  if (n < file.size) {
    throw new PMPError("integrity", `${file.name} has ${n} bytes where the manifest says ${file.size}. Upload the file to the host again.`);
  }
  return address;
}

/** Drops files of older versions of these weights from the cache. */
async function tidy(store, base, files) {
  if (!store) return;
  const folder = new URL(".", base).href;
  const wanted = new Set(files.map((f) => `${new URL(f.name, base).href}?sha256=${f.sha256}`));
  try {
    for (const { url } of await store.keys()) {
      if (url.startsWith(folder) && url.includes("?sha256=") && !wanted.has(url)) await store.delete(url);
    }
  } catch {
    // Another tab may be doing the same.
  }
}
