// The page's side of the benchmark. What it has to do stands in /plan, what it finds goes back to the server (bench.mjs).
//
//   blank   nothing but the pictures, to know what a page takes without an engine
//   one     one engine: how long it takes to load, its memory, its first run; then a reload, with caches filled
//   times   all engines in turns, so that a slow minute hits all of them; and whether they agree
//   ops     our engine op by op, and bare loops of the same matrix products (profile.js)
//   adapter which graphics card the browser has for WebGPU
//   card    the engines on that card in turns; and whether they agree with ours on the processor
//
// All clocks are performance.now in the worker that computes. The page is cross-origin isolated, so that threads can be had
// and clocks tick every 5 µs.
import { compare, masks } from "./answer.js";

const post = (path, value) => fetch(path, { method: "POST", body: JSON.stringify(value) });
const progress = (text) => post("/progress", text);
const pause = (ms) => new Promise((r) => setTimeout(r, ms));
const clock = () => performance.now();

const plan = await (await fetch("/plan")).json();
const inputs = await (await fetch("/cache/inputs.json")).json();

let result;
try {
  result = await { blank, one, times, ops, adapter, card }[plan.mode]();
} catch (e) {
  result = { error: String(e?.stack ?? e) };
}
// The server asks for a reload where it wants to know what filled caches are worth.
if ((await (await post("/result", result)).json()).reload) location.reload();

/** The square pixels of an example picture. */
async function picture(name) {
  const bitmap = await createImageBitmap(await (await fetch(`/pictures/${name}`)).blob());
  const context = new OffscreenCanvas(inputs.side, inputs.side).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, inputs.side, inputs.side);
  bitmap.close();
  return context.getImageData(0, 0, inputs.side, inputs.side);
}

// ------------------------------------------------------------------------------------------------------------- engines

/** Loads an engine. Its run() makes one encode and one segment of the picture given last, and returns the times in ms. */
async function open({ engine, threads, device }) {
  const [kind, precision] = engine.split("-");
  const start = clock();
  const opened = await (kind === "pmp" ? openOurs(precision, threads, device) : openPeer(kind, precision, threads, device));
  return { ...opened, load: clock() - start };
}

/** Words that no engine has seen: each is asked for once. */
function* newWords() {
  const kinds = "red blue old new tall tiny wooden plastic broken shiny wet dirty round striped golden frozen empty heavy painted hidden".split(" ");
  const things = ("lamp shoe bridge guitar piano spoon fork knife plate bowl ladder fence engine wheel candle mirror pillow blanket curtain carpet "
    + "camera radio clock wallet basket bucket hammer shovel rope tent kite balloon robot puppet helmet glove scarf jacket button zipper").split(" ");
  for (let n = 0; ; n++) {
    for (const thing of things) for (const kind of kinds) yield n ? `${kind} ${thing} ${n}` : `${kind} ${thing}`;
  }
}

/** Our engine by its public package. The times are its worker's own, from report(). */
async function openOurs(precision, threads, device) {
  const { Segmenter } = await import("/pmp/index.js");
  const seg = await Segmenter.load({ precision, threads, ...(device && { device }) });
  const loaded = seg.report();
  if ((loaded.precision ?? precision) !== precision) throw new Error(`the engine computes in ${loaded.precision}`);
  if (device && !loaded.device.startsWith(device)) throw new Error(`it runs on ${loaded.device}`);
  if (loaded.threads !== threads) throw new Error(loaded.reasons.find((r) => r.device === "threads")?.reason ?? `${loaded.threads} threads run`);
  const words = newWords();
  let pixels;
  return {
    device: loaded.device,
    features: loaded.features,
    pixels: (p) => (pixels = p),
    async run() {
      const picture = await seg.encode(pixels);
      await picture.segment(inputs.phrases);
      const { times: { begin, pixels: write, encode, segment, masks }, work } = seg.report();
      if (plan.software) {
        picture.close();
        return { encode, segment, begin, write, masks, work };
      }
      await picture.segment(Array.from(inputs.phrases, () => words.next().value));
      picture.close();
      return { encode, segment, words: seg.report().times.segment, begin, write, masks, ...(device && { work }) };
    },
    other: () => ({}),
    async answers() {
      const picture = await seg.encode(pixels);
      const { masks } = await picture.segment(inputs.phrases);
      picture.close();
      return masks.map((m) => ({ score: m.score, mask: m.present ? m.toBytes() : null }));
    },
    heap() {
      const { engine, kernels } = seg.report().memory;
      return engine + kernels;
    },
    close: () => seg.close(),
  };
}

async function openPeer(kind, precision, threads, device) {
  const worker = new Worker("/peer.js");
  const call = (name, args) => new Promise((resolve, reject) => {
    worker.onmessage = ({ data: { value, error } }) => (error ? reject(new Error(`${kind}: ${error}`)) : resolve(value));
    worker.onerror = (e) => reject(new Error(`${kind}: the worker stopped: ${e.message}`));
    worker.postMessage({ call: name, args });
  });
  const loaded = await call("load", { kind, precision, threads, device });
  let given;
  return {
    device: loaded.device,
    pixels: (picture) => call("pixels", { rgba: (given = picture).data, side: inputs.side }),
    run: () => call("run"),
    other: () => call("other"),
    answers: async () => masks(await call("maps"), inputs, given),
    heap: () => call("heap"),
    close: () => worker.terminate(),
  };
}

// --------------------------------------------------------------------------------------------------------------- modes

async function blank() {
  await picture(plan.picture);
  return {};
}

async function one() {
  const pixels = await picture(plan.picture);
  const engine = await open(plan.row);
  await engine.pixels(pixels);
  const first = await engine.run();
  for (let i = 0; i < 4; i++) await engine.run();
  return { load: engine.load, first, heap: await engine.heap(), device: engine.device };
}

async function times() {
  const rows = [], failed = [];
  const pixels = await picture(plan.picture);
  for (const row of plan.rows) {
    try {
      const engine = await open(row);
      await engine.pixels(pixels);
      rows.push({ ...row, engine, name: row.engine, device: engine.device, times: [] });
    } catch (e) {
      failed.push({ ...row, error: String(e?.message ?? e) });
    }
  }
  await progress(`${rows.length} engines are loaded`);
  for (let round = -plan.warm; round < plan.rounds; round++) {
    for (let i = 0; i < rows.length; i++) {
      // Who goes first changes, so that nobody always follows the same neighbour.
      const row = rows[(i + round + plan.warm) % rows.length];
      // Threads spin a while when they have no more work. After 20 ms all engines' are found asleep.
      await pause(30);
      await row.engine.run(); // brings its weights back into the caches
      const measured = await row.engine.run();
      Object.assign(measured, await row.engine.other());
      if (round >= 0) row.times.push(measured);
    }
    if ((round + plan.warm) % 5 === 4) await progress(`${round + plan.warm + 1} of ${plan.rounds + plan.warm} rounds`);
  }
  const agreement = await agree(rows);
  return { rows: rows.map(({ name, threads, device, times }, i) => ({ engine: name, threads, device, times, agreement: agreement[i] })), failed, isolated: crossOriginIsolated };
}

/** How far each row's masks on all pictures are from the first row's. */
async function agree(rows) {
  const found = rows.map(() => ({ masks: [], scores: 0, differing: 0, prompts: 0 }));
  for (const name of plan.pictures) {
    const pixels = await picture(name);
    let wanted;
    for (const [i, { engine }] of rows.entries()) {
      await engine.pixels(pixels);
      const got = await engine.answers();
      wanted ??= got;
      const { masks, scores, differing } = compare(got, wanted);
      found[i].masks.push(...masks);
      found[i].scores = Math.max(found[i].scores, scores);
      found[i].differing += differing;
      found[i].prompts += got.length;
    }
  }
  return found;
}

/** The graphics card that engines will get, or null; a driver that hangs counts as none. */
async function adapter() {
  const found = await Promise.race([navigator.gpu?.requestAdapter({ powerPreference: "high-performance" }), pause(15e3)]);
  if (!found) return { adapter: null };
  const { vendor, architecture, device, description, isFallbackAdapter } = found.info;
  const software = Boolean(isFallbackAdapter ?? found.isFallbackAdapter) || /swiftshader|llvmpipe|basic render/i.test(`${architecture} ${device} ${description}`);
  return { adapter: { vendor, architecture, device, description, software, features: [...found.features].sort() } };
}

/** The rows on the graphics card in turns. A row that fails is left out from then on, and tells its error. */
async function card() {
  const pixels = await picture(plan.picture);
  const reference = { engine: await open({ engine: "pmp-f32", threads: 1, device: "simd" }) };
  const rows = plan.rows.map((row) => ({ row, times: [] }));
  const attempt = async (r, f) => {
    if (r.error) return;
    try {
      await f();
    } catch (e) {
      r.error = String(e?.message ?? e);
      r.engine?.close();
    }
  };
  for (const r of rows) {
    await attempt(r, async () => {
      r.engine = await open(r.row);
      await r.engine.pixels(pixels);
      await progress(`${r.row.engine} is on the graphics card`);
    });
  }
  for (let round = -plan.warm; round < plan.rounds; round++) {
    for (let i = 0; i < rows.length; i++) {
      const r = rows[(i + round + plan.warm) % rows.length];
      await attempt(r, async () => {
        await pause(30); // as in times
        if (!plan.software) await r.engine.run(); // a card that had nothing to do is slow at first
        const measured = await r.engine.run();
        if (!plan.software) Object.assign(measured, await r.engine.other());
        if (round >= 0) r.times.push(measured);
      });
    }
    if (plan.software || (round + plan.warm) % 5 === 4) await progress(`${round + plan.warm + 1} of ${plan.rounds + plan.warm} rounds on the graphics card`);
  }
  for (const r of rows) await attempt(r, async () => (r.agreement = (await agree([reference, r]))[1]));
  return { rows: rows.map(({ row, engine, times, agreement, error }) => ({ ...row, device: engine?.device, features: engine?.features, times, agreement, error })) };
}

/** Our engine's ops, and the bare loops of their matrix products. */
async function ops() {
  const found = { precisions: {}, failed: [] };
  for (const precision of plan.precisions) {
    try {
      found.precisions[precision] = await profile({ precision, phrases: inputs.phrases, side: inputs.side, repeats: plan.repeats });
      await progress(`the ops in ${precision} are timed`);
    } catch (e) {
      found.failed.push({ precision, error: String(e?.message ?? e) });
    }
  }
  const all = Object.values(found.precisions).flatMap(({ encode, segment }) => [...encode.ops, ...segment.ops]);
  const shapes = new Map(all.flatMap((op) => op.gemms ?? []).map(({ shape }) => [shape.join(), shape]));
  found.ceiling = await profile({ shapes: [...shapes.values()] });
  return found;
}

function profile(message) {
  const worker = new Worker("/profile.js", { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data: { value, error } }) => (error ? reject(new Error(error)) : resolve(value));
    worker.onerror = (e) => reject(new Error(`profile.js stopped: ${e.message}`));
    worker.postMessage(message);
  }).finally(() => worker.terminate());
}
