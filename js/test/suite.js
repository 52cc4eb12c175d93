// The suite as a page. It runs in any browser that opens suite.html, and sends each result to
// the server that it came from (internal/browsertest), or shows it if that server does not
// want it. The server offers the same files in several ways; the path says in which:
// /strict/ under a strict Content-Security-Policy and not isolated, /isolated/ cross-origin
// isolated and with wrong types.
import { Segmenter, PMPError } from "../pmp/index.js";

const mode = location.pathname.split("/")[1];
const only = new URLSearchParams(location.search).get("only");
const PHOTO = new URL("../examples/cat.jpg", location.href).href;
const PNG = `${PHOTO}.as-png`; // the pixels that Go decodes from PHOTO
const WORDS = ["cat", "dog", "sofa, couch", "helicopter"];

const tests = [];
/** Runs under /strict/ only, unless modes says more. f may return data for the server to check. */
function test(name, f, modes = ["strict"], minutes = mode.endsWith("card") ? 10 : 5) {
  if (modes.includes(mode) && (!only || name.includes(only))) tests.push({ name, f, minutes });
}

class Skip extends Error {}
const violations = [];
document.addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));

function check(ok, what) {
  if (!ok) throw new Error(`not so: ${what}`);
}

function same(got, want, what) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)];
  if (a !== b) throw new Error(`${what}: got ${a}, want ${b}`);
}

/** Expects a PMPError, perhaps of another copy of the package, with a code and a message that a person can use. */
async function fails(promise, code, pattern) {
  let value;
  try {
    value = await promise;
  } catch (e) {
    if (e?.constructor?.name !== PMPError.name) throw new Error(`want a PMPError ${code}, got ${e?.name}: ${e?.message}`);
    if (e.code !== code) throw new Error(`want code ${code}, got ${e.code}: ${e.message}`);
    check(e.message.length > 15, `"${e.message}" says something`);
    if (pattern) check(pattern.test(e.message), `"${e.message}" matches ${pattern}`);
    return e;
  }
  throw new Error(`want a PMPError ${code}, got ${typeof value}`);
}

const pause = (ms) => new Promise((r) => setTimeout(r, ms));

/** One Segmenter for all tests that need nothing special. */
let shared;
const segmenter = () => (shared ??= Segmenter.load());

let right;
/** After a fault the page is as good as before: a Segmenter, a new one unless it is given, finds what was found at first. */
async function works(seg) {
  const find = async (seg) => {
    const picture = await seg.encode(PNG);
    const { masks } = await picture.segment(WORDS);
    picture.close();
    return masks.map((m) => m.rle());
  };
  right ??= find(await segmenter());
  same(await (seg ? find(seg) : withOwn({}, find)), await right, "masks after a fault");
}

/** Calls f with a Segmenter of its own. */
async function withOwn(options, f) {
  const seg = await Segmenter.load(options);
  try {
    return await f(seg);
  } finally {
    seg.close();
  }
}

const blobOf = async (url) => (await fetch(url)).blob();

async function canvasOf(url) {
  const bitmap = await createImageBitmap(await blobOf(url));
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0);
  return canvas;
}

/** A piece of the photo that is wide and low, and so quick even without SIMD. */
async function strip() {
  const canvas = await canvasOf(PNG);
  return canvas.getContext("2d").getImageData(0, 120, canvas.width, 56);
}

/** What the server compares with its own answer. */
const facts = ({ masks }) => masks.map((m) => ({ text: m.text, score: m.score, present: m.present, area: m.area, bbox: m.bbox, rle: m.rle() }));

/** Intersection over union; two empty masks are the same. */
function iou(a, b) {
  const x = a.toBytes(), y = b.toBytes();
  let both = 0, any = 0;
  for (let i = 0; i < x.length; i++) {
    both += x[i] & y[i];
    any += x[i] | y[i];
  }
  return any ? both / any : 1;
}

// ---------------------------------------------------------------------------
// Loading

const everywhere = ["strict", "isolated"];

test("load tells its progress", async () => {
  await caches?.delete("pmp-weights").catch(() => {});
  const seen = [];
  const seg = await (shared = Segmenter.load({ onprogress: (p) => seen.push(p) }));
  const stages = [...new Set(seen.map((p) => p.stage))];
  same(stages, ["download", "prepare", "ready"], "stages");
  for (let i = 1; i < seen.length; i++) check(seen[i].loaded >= seen[i - 1].loaded, `bytes only grow, at ${i}`);
  const last = seen.at(-1);
  check(last.total > 0 && last.loaded === last.total, `all bytes are there at the end: ${JSON.stringify(last)}`);
  check(seen.filter((p) => p.stage === "download").length > 3, "there is progress on the way");
  const report = seg.report();
  check(["simd", "simd (relaxed)", "scalar"].includes(report.device), `a device runs: ${report.device}`);
  check(report.reasons.every((r) => r.device && r.reason), "each device that does not run has a reason");
  check(report.memory.engine > 0 && (report.device === "scalar" || report.memory.kernels > 1e6) && report.weights === last.total, "memory and weights are told");
  return { report };
}, everywhere);

test("the page is isolated or not, as the server says", () => same(crossOriginIsolated, mode === "isolated", "crossOriginIsolated"), everywhere);

/** What the server counts of a path, see internal/browsertest. */
const counted = async (what, path) => (await fetch(`/${what}${path}`)).json();

/** The files that the manifest lists. */
const filesOf = async () => (await (await fetch("../pmp/weights/manifest.json")).json()).shards;

async function weightCache() {
  const cache = await globalThis.caches?.open("pmp-weights").catch(() => null);
  if (!cache) throw new Skip("this browser has no Cache API here");
  return cache;
}

test("weights stay in the cache", async () => {
  const cache = await weightCache();
  await segmenter();
  const [shard] = await filesOf();
  const asked = () => counted("asked", new URL(`../pmp/weights/${shard.file}`, location.href).pathname);
  const before = await asked();
  await withOwn({}, () => {});
  same(await asked(), before, "downloads of the first shard");
  // A damaged entry is noticed and replaced.
  const key = (await cache.keys()).find((r) => r.url.includes(shard.file));
  const whole = new Uint8Array(await (await cache.match(key)).arrayBuffer()), flipped = whole.slice();
  flipped[whole.length >> 1] ^= 1;
  for (const [i, damaged] of [whole.slice(0, 10), flipped].entries()) {
    await cache.put(key, new Response(damaged));
    await withOwn({}, () => {});
    same(await asked(), before + 1 + i, "downloads after the entry was damaged");
    const mended = new Uint8Array(await (await cache.match(key)).arrayBuffer());
    check(mended.length === whole.length && mended.every((v, i) => v === whole[i]), "the entry is whole again");
  }
});

// transformers.js#99: what is kept is awaited, so a page that is left at once has it at the next visit.
test("weights are kept when load returns", async () => {
  const cache = await weightCache();
  const { Segmenter } = await packageOf("slowdisk");
  (await Segmenter.load()).close();
  const kept = (await cache.keys()).filter((r) => r.url.includes("/slowdisk/"));
  same(kept.length, 1 + (await filesOf()).length, "manifest and files in the cache");
  await Promise.all(kept.map((r) => cache.delete(r)));
});

// transformers.js#1339
test("the engine is downloaded once", async () => {
  await segmenter();
  const sent = () => counted("sent", new URL("../pmp/engine.wasm", location.href).pathname);
  const before = await sent();
  check(before > 0, "the server counts");
  await withOwn({}, () => {});
  same(await sent(), before, "downloads of the engine");
});

test("weights may be an address of a folder or of a manifest", async () => {
  await withOwn({ weights: "../pmp/weights" }, () => {});
  await withOwn({ weights: new URL("../pmp/weights/manifest.json", location.href), cache: false }, () => {});
  await fails(Segmenter.load({ weights: "http://[" }), "bad-input", /URL/);
  await fails(Segmenter.load({ device: "abacus" }), "bad-input", /abacus/);
});

/** Calls f for each file of the weights, with an address at which it is damaged at a random place. */
async function eachDamaged(kind, f) {
  const cache = await weightCache();
  const all = await filesOf();
  for (const { file, size } of all) {
    const damage = `${kind}/${file}/${1 + Math.floor(Math.random() * (size - 1))}`;
    const kept = async () => (await cache.keys()).map((r) => r.url).filter((url) => url.includes(`/damage/${damage}/`));
    try {
      await f({ file, weights: `/damage/${damage}/`, say: (what) => fetch(`/${what}/${damage}`), others: all.map((o) => o.file).filter((o) => o !== file), kept });
    } catch (e) {
      throw new Error(`${damage}: ${e.message}`);
    }
    for (const url of await kept()) await cache.delete(url);
  }
}

/** A pattern for a file's name. */
const named = (file) => new RegExp(RegExp.escape?.(file) ?? file.replaceAll(".", "\\."));

// transformers.js#1625
for (const [kind, code] of [["cut", "integrity"], ["flip", "integrity"], ["gone", "network"]]) {
  test(`damaged weights, each file: ${kind}`, () => eachDamaged(kind, async ({ file, weights, say, kept }) => {
    const e = await fails(Segmenter.load({ weights }), code, named(file));
    if (kind === "gone") check(/404/.test(e.message), e.message);
    check(!(await kept()).some((url) => url.includes(`/${file}?`)), "what is damaged is not kept");
    await say("heal");
    await withOwn({ weights }, works);
  }));
}

// transformers.js#1220
test("a broken download goes on with what is missing, each file", () => eachDamaged("held", async ({ file, weights, say, others, kept }) => {
  const loading = fails(Segmenter.load({ weights }), "network", named(file));
  for (let there = []; !others.every((o) => there.some((url) => url.includes(o))); await pause(20)) there = await kept();
  await say("break");
  await loading;
  await say("heal");
  const asked = () => Promise.all(others.map((o) => counted("asked", weights + o)));
  const before = await asked();
  await withOwn({ weights }, works);
  same(await asked(), before, `requests for ${others}`);
}));

// transformers.js#1220: the server gives the end of the file only to who asks for the rest.
test("a connection that breaks goes on where it broke, each file", () => eachDamaged("dropped", ({ weights }) => withOwn({ weights }, works)));

// imgly#160
test("a page where the manifest should be", async () => {
  const e = await fails(Segmenter.load({ weights: "/damage/html/" }), "format", /manifest/);
  await works();
  return { message: e.message };
});

// onnxruntime#19831, imgly#160
test("a page where the engine should be", async () => {
  const { Segmenter } = await packageOf("nowasmfile");
  const e = await fails(Segmenter.load(), "format", /engine\.wasm is not WebAssembly/);
  await works();
  return { message: e.message };
});


test("hashes come from the browser, if it has them", async () => {
  const misled = await packageOf("misled");
  const e = await misled.Segmenter.load({ cache: false }).catch((e) => e);
  same(e.code, "integrity", "code when the browser says that the files are others");
  const { Segmenter: Own } = await packageOf("nohash");
  const [{ file }] = await filesOf();
  const bad = await Own.load({ weights: `/damage/flip/${file}/100/` }).catch((e) => e);
  same(bad.code, "integrity", "code of a damaged file where the browser says nothing");
  (await Own.load({ cache: false })).close();
});

// transformers.js#378
test("a policy that forbids WebAssembly", async () => {
  const { Segmenter, PMPError: Theirs } = await import("/nowasm/pmp/index.js");
  const e = await Segmenter.load().catch((e) => e);
  check(e instanceof Theirs, `an error: ${e}`);
  same(e.code, "unsupported", "code");
  check(/wasm-unsafe-eval/.test(e.message), e.message);
});

test("a file that is missing beside the worker", async () => {
  const { Segmenter } = await import("/nofile/pmp/index.js");
  const e = await Segmenter.load().catch((e) => e);
  same(e.code, "unsupported", "code");
  check(/wasm_exec/.test(e.message), e.message);
});

test("without SIMD pure Go runs, and says why", async () => {
  const { Segmenter } = await import("/nosimd/pmp/index.js");
  const seg = await Segmenter.load();
  const report = seg.report();
  same(report.device, "scalar", "device");
  check(report.reasons.some((r) => r.device === "simd" && /SIMD/.test(r.reason)), JSON.stringify(report.reasons));
  const picture = await seg.encode(await strip());
  await picture.segment(["cat"]);
  seg.close();
  const e = await Segmenter.load({ device: "simd" }).catch((e) => e);
  same(e.code, "unsupported", "code when only SIMD will do");
});

/** Puts a value into IndexedDB and takes it out again. */
async function throughDatabase(value) {
  const done = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const opening = indexedDB.open("pmp-test");
  opening.onupgradeneeded = () => opening.result.createObjectStore("weights");
  const db = await done(opening);
  const store = () => db.transaction("weights", "readwrite").objectStore("weights");
  await done(store().put(value, "all"));
  const back = await done(store().get("all"));
  db.close();
  await done(indexedDB.deleteDatabase("pmp-test"));
  return back;
}

// transformers.js#991
test("weights that the page has", async () => {
  const folder = new URL("../pmp/weights/", location.href);
  const manifest = await (await fetch(new URL("manifest.json", folder))).arrayBuffer();
  const names = JSON.parse(new TextDecoder().decode(manifest)).shards.map((s) => s.file);
  const files = await Promise.all(names.map(async (n) => new File([await blobOf(new URL(n, folder))], n)));
  const shards = Object.fromEntries(await Promise.all(files.map(async (f) => [f.name, new Uint8Array(await f.arrayBuffer())])));
  const want = await (await (await segmenter()).encode(PNG)).segment(["cat"]);
  for (const weights of [{ manifest, shards }, { manifest: new Blob([manifest]), shards: files }, [...files, new File([manifest], "manifest.json")], await throughDatabase({ manifest, shards })]) {
    const seen = [];
    await withOwn({ weights, onprogress: (p) => seen.push(p.stage) }, async (seg) => {
      const got = await (await seg.encode(PNG)).segment(["cat"]);
      same(got.masks[0].rle(), want.masks[0].rle(), "mask");
      check(seen.includes("download") && seen.at(-1) === "ready", "progress");
    });
  }
  await fails(Segmenter.load({ weights: files }), "bad-input", /no manifest\.json/);
  await fails(Segmenter.load({ weights: { manifest, shards: files.slice(1) } }), "bad-input", new RegExp(names[0].replaceAll(".", "\\.")));
  await fails(Segmenter.load({ weights: { manifest, shards: { ...shards, [names.at(-1)]: shards[names.at(-1)].slice(1) } } }), "integrity");
  const bad = shards[names.at(-1)].slice();
  bad[bad.length >> 1] ^= 1;
  await fails(Segmenter.load({ weights: { manifest, shards: { ...shards, [names.at(-1)]: bad } } }), "integrity");
  for (const weights of [7, null, {}, { manifest }, { manifest: "text", shards }, ["text"]]) await fails(Segmenter.load({ weights }), "bad-input", /weights must be/);
});

// transformers.js#1182, wllama#83
test("load can be stopped", async () => {
  await fails(Segmenter.load({ signal: AbortSignal.abort() }), "aborted");
  const controller = new AbortController();
  const loading = Segmenter.load({
    weights: "/damage/slow/",
    signal: controller.signal,
    onprogress: (p) => p.loaded > 0 && controller.abort(),
  });
  const e = await fails(loading, "aborted");
  same(e.name, "AbortError", "name");
  const shards = (await filesOf()).filter(({ file }) => file.endsWith(".safetensors"));
  for (const { file } of shards) {
    for (let i = 0; (await counted("ended", `/damage/slow/${file}`)) === 0; i++) {
      check(i < 200, `the browser ended the download of ${file}`);
      await pause(50);
    }
  }
  await works();
});

// transformers.js#1182, wllama#83
test("load stopped at any moment", async () => {
  const start = performance.now();
  await withOwn({ cache: false }, () => {});
  const whole = performance.now() - start;
  const outcomes = [];
  for (let i = 0; i < 12; i++) {
    const stop = new AbortController();
    const at = Math.random() * whole;
    setTimeout(() => stop.abort(), at);
    const outcome = await Segmenter.load({ signal: stop.signal, cache: i % 2 === 0 }).then((seg) => (seg.close(), "done"), (e) => e.code ?? e.message);
    outcomes.push([Math.round(at), outcome]);
  }
  check(outcomes.every(([, o]) => o === "done" || o === "aborted") && outcomes.some(([, o]) => o === "aborted"), `outcomes: ${outcomes.join(" ")}`);
  await works();
  return { outcomes };
});

// ---------------------------------------------------------------------------
// Seeing

// mediapipe#4501, mediapipe#5430: in every browser the masks are there.
test("a PNG gives the command line's masks", async () => {
  const seg = await segmenter();
  const picture = await seg.encode(PNG);
  const answer = await picture.segment(WORDS);
  same(answer.labelMap.length, picture.width * picture.height, "label map's length");
  check(answer.masks.some((m) => m.present), "something is found");
  picture.close();
  // Relaxed SIMD fuses multiply-adds where the command line does not; what is rounded to integers
  // afterwards falls on one side here and on the other there, along the edges of masks.
  return { photo: "cat.jpg", tolerance: 0.99, masks: facts(answer) };
}, everywhere);

test("a JPEG gives the command line's masks", async () => {
  const seg = await segmenter();
  const picture = await seg.encode(PHOTO);
  const answer = await picture.segment(WORDS);
  picture.close();
  return { photo: "cat.jpg", tolerance: 0.98, masks: facts(answer) };
}, everywhere);

test("new words do not encode again", async () => {
  const seg = await segmenter();
  const picture = await seg.encode(PHOTO);
  const before = seg.report().counts;
  const first = await picture.segment(["cat"]);
  const second = await picture.segment(["helicopter", "cat"]);
  const third = await picture.segment("cat");
  const after = seg.report().counts;
  same([after.encode - before.encode, after.segment - before.segment], [0, 3], "encodings and segmentations");
  same(first.masks[0].rle(), third.masks[0].rle(), "the same word again");
  check(iou(first.masks[0], second.masks[1]) > 0.5, "another word beside it changes little");
  picture.close();
  return { report: seg.report() };
});

test("an absent word is said to be absent", async () => {
  const seg = await segmenter();
  const picture = await seg.encode(PHOTO);
  const { masks: [mask], labelMap } = await picture.segment(["helicopter"]);
  same([mask.present, mask.area, mask.bbox], [false, 0, [0, 0, 0, 0]], "present, area, bbox");
  check(mask.score < 0.5, `score ${mask.score}`);
  check(labelMap.every((v) => v === 255), "the label map is empty");
  same(mask.polygons(), [], "outlines");
  picture.close();
});

test("pure Go answers like SIMD", async () => {
  const image = await strip();
  const words = ["cat", "sofa, couch", "eye"];
  const answer = (device) => withOwn({ device, precision: "f32" }, async (seg) => {
    check(seg.report().device.startsWith(device), `device ${seg.report().device}`);
    const picture = await seg.encode(image);
    return { answer: await picture.segment(words, { threshold: 0.3 }), report: seg.report() };
  });
  let simd;
  try {
    simd = await answer("simd");
  } catch (e) {
    throw e.code === "unsupported" ? new Skip("no SIMD here") : e;
  }
  const scalar = await answer("scalar");
  simd.answer.masks.forEach((m, i) => {
    const n = scalar.answer.masks[i];
    check(Math.abs(m.score - n.score) < 1e-3, `scores of ${m.text}: ${m.score} and ${n.score}`);
    check(iou(m, n) > 0.995, `masks of ${m.text}: IoU ${iou(m, n)}`);
  });
  return { simd: simd.report.times, scalar: scalar.report.times };
});

test("every kind of source gives the same mask", async () => {
  const seg = await segmenter();
  const canvas = await canvasOf(PNG);
  const img = new Image();
  img.src = PNG;
  const offscreen = new OffscreenCanvas(canvas.width, canvas.height);
  offscreen.getContext("2d").drawImage(canvas, 0, 0);
  const blob = await blobOf(PNG);
  const sources = {
    ImageData: canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height),
    canvas, img, offscreen, blob,
    file: new File([blob], "cat.png", { type: "image/png" }),
    bitmap: await createImageBitmap(canvas),
    address: PNG,
    URL: new URL(PNG),
  };
  if (globalThis.VideoFrame) sources.videoFrame = new VideoFrame(canvas, { timestamp: 0, alpha: "discard" });
  let want;
  for (const [name, source] of Object.entries(sources)) {
    const picture = await seg.encode(source);
    same([picture.width, picture.height], [canvas.width, canvas.height], `${name}'s size`);
    const { masks: [mask] } = await picture.segment(["cat"]);
    want ??= mask;
    check(iou(mask, want) > 0.999, `${name}'s mask, IoU ${iou(mask, want)}`);
    picture.close();
  }
  sources.videoFrame?.close();
  check(sources.bitmap.width > 0 && sources.ImageData.data.length > 0, "what the page gave is still the page's");
});

test("transparent pixels count as white", async () => {
  const seg = await segmenter();
  const canvas = await canvasOf(PNG);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height / 2);
  const clear = await new Promise((r) => canvas.toBlob(r));
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height / 2);
  const answers = [];
  for (const source of [clear, canvas]) {
    const picture = await seg.encode(source);
    answers.push((await picture.segment(["cat"], { threshold: 0.2 })).masks[0]);
    picture.close();
  }
  check(Math.abs(answers[0].score - answers[1].score) < 1e-4 && iou(...answers) > 0.999, "both pictures look the same");
});

test("a mask comes in every form", async () => {
  const seg = await segmenter();
  const picture = await seg.encode(PHOTO);
  const { masks: [mask] } = await picture.segment(["cat"]);
  picture.close();
  const { width, height } = mask;
  const bytes = mask.toBytes();
  same(bytes.reduce((a, b) => a + b, 0), mask.area, "area");
  let [x0, y0, x1, y1] = [width, height, 0, 0];
  bytes.forEach((v, i) => {
    if (!v) return;
    const x = i % width, y = Math.floor(i / width);
    [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x + 1), Math.max(y1, y + 1)];
  });
  same(mask.bbox, [x0, y0, x1 - x0, y1 - y0], "bbox");

  const image = mask.toImageData({ color: [1, 2, 3] });
  const inside = bytes.indexOf(1), outside = bytes.indexOf(0);
  same([...image.data.slice(4 * inside, 4 * inside + 4)], [1, 2, 3, 255], "a pixel inside");
  same(image.data[4 * outside + 3], 0, "alpha outside");
  const bitmap = await mask.toImageBitmap();
  same([bitmap.width, bitmap.height], [width, height], "bitmap's size");
  const blob = await mask.toBlob();
  same(blob.type, "image/png", "blob's type");

  // The outlines, filled, are the mask.
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  let signed = 0;
  for (const p of mask.polygons()) {
    context.moveTo(p[0], p[1]);
    for (let i = 2; i < p.length; i += 2) context.lineTo(p[i], p[i + 1]);
    context.closePath();
    for (let i = 0; i < p.length; i += 2) {
      const j = (i + 2) % p.length;
      signed += (p[i] * p[j + 1] - p[j] * p[i + 1]) / 2;
    }
  }
  same(signed, mask.area, "area within the outlines, holes taken off");
  context.fill();
  const filled = context.getImageData(0, 0, width, height).data;
  let wrong = 0;
  for (let i = 0; i < bytes.length; i++) if ((filled[4 * i + 3] > 127) !== (bytes[i] === 1)) wrong++;
  same(wrong, 0, "pixels that differ when the outlines are filled");
});

test("proposals, with the words and without", async () => {
  const seg = await segmenter();
  const picture = await seg.encode(PHOTO);
  const rles = (list) => list.map((m) => m.rle().counts);
  const guided = await picture.proposals(["cat", "dog"]);
  check(guided.length > 20 && guided.every((m) => ["cat", "dog"].includes(m.text) && m.score >= 0 && m.score <= 1), "every query has a proposal, and each is called one of the prompts");
  const cat = guided.reduce((a, b) => (b.score > a.score ? b : a));
  same(cat.text, "cat", "the surest name");
  const { masks: [mask] } = await picture.segment(["cat", "dog"]);
  check(iou(cat, mask) > 0.9, "the surest proposal is about the mask of segment");
  const without = await picture.proposals(["cat", "dog"], { guided: false });
  same(rles(await picture.proposals(["tree"], { guided: false })), rles(without), "proposals that do not see the words");
  check(JSON.stringify(rles(without)) !== JSON.stringify(rles(guided)), "the words change the proposals");
  same((await picture.segment(["cat", "dog"])).masks[0].rle(), mask.rle(), "the mask after proposals");
  const alone = (await picture.segment(["cat"], { guided: false })).masks[0];
  check(iou(alone, mask) > 0.5, "even without reading the word the cat is found");
  await fails(picture.proposals([]), "bad-input");
  picture.close();
  await fails(picture.proposals(["cat"]), "bad-input", /closed/);
});

test("a video is answered frame by frame, without a queue", async () => {
  const seg = await segmenter();
  const canvas = await canvasOf(PHOTO);
  const context = canvas.getContext("2d");
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true });
  const stream = canvas.captureStream(60);
  video.srcObject = stream;
  let drawn = 0;
  const timer = setInterval(() => {
    context.fillStyle = `rgb(${drawn % 256} 0 0)`;
    context.fillRect(0, 0, 8, 8); // a new frame
    drawn++;
  }, 10);
  try {
    await video.play();
    const open = seg.report().counts;
    let n = 0, dropped = 0;
    const words = [["cat"], ["dog", "cat"]];
    for await (const r of seg.video(video, () => words[n % 2])) {
      same(r.masks.map((m) => m.text), words[n % 2], "prompts of this frame");
      if (n < 3) check(r.masks.at(-1).present, "the cat is in the frame");
      check(n < 3 ? r.width === 451 : [451, 200].includes(r.width), `the frame's sides: ${r.width}×${r.height}`);
      check(typeof r.time === "number", "time");
      dropped += r.dropped;
      if (++n === 3) Object.assign(canvas, { width: 200, height: 160 }); // and what was drawn is gone
      if (n === 3) context.drawImage(await createImageBitmap(await blobOf(PHOTO)), 0, 0, 200, 160);
      if (r.width === 200 && r.masks.at(-1).present) break;
      check(n < 100, "the new size is seen, and the cat in it");
    }
    check(seg.report().counts.encode - open.encode === n, "one encoding an answer");
    const stop = new AbortController();
    let seen = 0;
    await fails((async () => {
      for await (const _ of seg.video(video, "cat", { signal: stop.signal })) if (++seen === 2) stop.abort();
    })(), "aborted");
    clearInterval(timer);
    // Without new frames it waits, and can still be stopped.
    const late = new AbortController();
    setTimeout(() => late.abort(), 600);
    await fails((async () => { for await (const _ of seg.video(video, "cat", { signal: late.signal })); })(), "aborted");
    await fails((async () => { for await (const _ of seg.video(canvas, "cat")); })(), "bad-input", /<video>/);
    await fails((async () => { for await (const _ of seg.video(video, [])); })(), "bad-input");
    return { dropped };
  } finally {
    clearInterval(timer);
    for (const t of stream.getTracks()) t.stop();
  }
});

test("calls wait for each other", async () => {
  const seg = await segmenter();
  const order = [];
  const note = (name) => (v) => (order.push(name), v);
  const a = seg.encode(PHOTO).then(note("a"));
  const b = seg.encode(PHOTO).then(note("b"));
  const [p, q] = await Promise.all([a, b]);
  const c = p.segment(["cat"]).then(note("c")), d = q.segment(["cat"]).then(note("d")), e = p.segment(["dog"]).then(note("e"));
  const answers = await Promise.all([c, d, e]);
  same(order.slice(2), ["c", "d", "e"], "order");
  same(answers[0].masks[0].rle(), answers[1].masks[0].rle(), "two pictures, one answer");
  p.close();
  q.close();
});

test("an overlay shows what the label map says", async () => {
  const seg = await segmenter();
  await checkOverlay(await seg.encode(await strip()));
});

/** Compares a picture's overlay with its label map, and closes it. */
async function checkOverlay(picture) {
  const colors = [[250, 10, 20], [0, 200, 100, 128]];
  const words = ["cat", "sofa, couch", "helicopter"];
  const { labelMap, masks } = await picture.segment(words, { threshold: 0.2 });
  const { bitmap, answers } = await picture.overlay(words, { colors, threshold: 0.2 });
  same(answers.map((a) => [a.text, a.present]), masks.map((m) => [m.text, m.present]), "answers");
  same([bitmap.width, bitmap.height], [picture.width, picture.height], "sides");
  check(labelMap.some((l) => l !== 255), "something is found");
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const { data } = canvas.getContext("2d").getImageData(0, 0, bitmap.width, bitmap.height);
  for (let i = 0; i < labelMap.length; i++) {
    const [r, g, b, a = 255] = labelMap[i] === 255 ? [0, 0, 0, 0] : colors[labelMap[i] % colors.length];
    const got = [...data.slice(4 * i, 4 * i + 4)];
    // Canvases keep colours times alpha, which costs precision.
    check(got.every((v, j) => Math.abs(v - [r, g, b, a][j]) <= (a === 255 ? 0 : 2)), `pixel ${i} with label ${labelMap[i]}: ${got}`);
  }
  for (const colors of [[], "red", [[1, 2]], [[1, 2, NaN]]]) await fails(picture.overlay("cat", { colors }), "bad-input", /colors/);
  picture.close();
  await fails(picture.overlay("cat"), "bad-input", /closed/);
}

// ---------------------------------------------------------------------------
// Networks of public checkpoints

for (const base of ["mask2former", "maskformer", "maskformer-swin"]) {
  test(`a public checkpoint: ${base}`, () => withOwn({ weights: `/bases/${base}/`, device: mode === "card" ? "webgpu" : "simd" }, async (seg) => {
    const { device, precision } = seg.report();
    check(device.startsWith(mode === "card" ? "webgpu" : "simd"), device);
    same(precision, "f32", "precision");
    const { labels } = seg;
    const picture = await seg.encode(PNG);
    await fails(picture.segment(["unicorn"]), "bad-input", /knows 11 names and "unicorn" is not one of them: dog; cat/);
    const prompts = [labels.slice(0, 6).join(", "), labels.slice(6).join(", "), labels[0]];
    const answer = await picture.segment(prompts, { threshold: 0.6 });
    const shares = answer.masks.map((m) => m.area / (picture.width * picture.height));
    check(shares.some((s) => s > 0.05 && s < 0.95), `a mask with an edge: ${shares}`);
    return { photo: "cat.jpg", base, threshold: 0.6, tolerance: 0.999, masks: facts(answer) };
  }), [...everywhere, "card"]);
}

for (const base of ["fcclip", "fcclip-attention", "fcclip-names", "ovseg", "ovseg-names"]) {
  const closed = base.endsWith("-names");
  test(`a public checkpoint that CLIP names: ${base}`, () => withOwn({ weights: `/bases/${base}/`, device: mode === "card" ? "webgpu" : "simd" }, async (seg) => {
    check(seg.report().device.startsWith(mode === "card" ? "webgpu" : "simd"), seg.report().device);
    const picture = await seg.encode(PNG);
    same(seg.labels, closed ? ["unicorn", "a red thing"] : null, "labels");
    if (closed) await fails(picture.segment(["dog"]), "bad-input", /knows 2 names and "dog" is not one of them: unicorn; a red thing/);
    const answer = await picture.segment([closed ? "Unicorn, a red thing" : "unicorn, a red thing"], { threshold: 0.6 });
    const shares = answer.masks.map((m) => m.area / (picture.width * picture.height));
    check(shares.some((s) => s > 0.05 && s < 0.95), `a mask with an edge: ${shares}`);
    return { photo: "cat.jpg", base, threshold: 0.6, tolerance: 0.999, masks: facts(answer) };
  }), closed ? everywhere : [...everywhere, "card"]); // a list of names takes nothing else from the card
}

for (const precision of ["f32", "int8"]) {
  test(`your own checkpoint in ${precision}`, async () => {
    if (!(await fetch("/bases/own/manifest.json")).ok) throw new Skip("PMP_CHECKPOINT names no folder of weights");
    return withOwn({ weights: "/bases/own/", device: "simd", precision, cache: false }, async (seg) => {
      const processor = async () => Object.values(await workerThreads()).reduce((a, b) => a + b, 0);
      const before = await processor();
      const picture = await seg.encode(PNG);
      await picture.segment(seg.labels?.slice(0, 20) ?? WORDS);
      const { device, threads, memory, weights, times } = seg.report();
      return { device, threads, memory, weights, times, processor: await processor() - before };
    });
  }, everywhere, 20);
}

// ---------------------------------------------------------------------------
// Graphics cards

/** A card that works, and one that does not: both take minutes and have a browser of their own. */
const card = ["card"], badCard = ["badcard"];
/** A network for smaller pictures, since cards made of software are slow. */
const small = { weights: "/bases/small/" };
/** The same without integers, whose products of bytes take such cards most of the time that compiling takes. */
const quick = { ...small, precision: "f32" };

/** Asks a worker, or the only one with a card, for something that internal/browsertest has put into it. */
async function ask(name, say) {
  const channel = new BroadcastChannel(name);
  const done = new Promise((r) => (channel.onmessage = ({ data }) => data.done === say && r(data)));
  channel.postMessage({ say });
  const answer = await done;
  channel.close();
  return answer;
}

const theCard = (say) => ask("card", say);

const reasonOf = (seg, device) => seg.report().reasons.find((r) => r.device === device)?.reason ?? "";

// transformers.js#1604, transformers.js#1700: what the browser lacks is no error.
test("without a card the processor runs, and the report says why", async () => {
  const seg = await segmenter();
  check(navigator.gpu ? /no graphics card/.test(reasonOf(seg, "webgpu")) : /WebGPU/.test(reasonOf(seg, "webgpu")), reasonOf(seg, "webgpu"));
  const e = await fails(Segmenter.load({ device: "webgpu" }), "unsupported", /auto/);
  return { reason: reasonOf(seg, "webgpu"), error: e.message };
}, everywhere);

test("a card made of software is left alone", async () => {
  const seg = await segmenter();
  check(seg.report().device.startsWith("simd"), seg.report().device);
  check(/program on the processor/.test(reasonOf(seg, "webgpu")), reasonOf(seg, "webgpu"));
}, card);

let onCard;
/** One Segmenter on the card for all tests that leave it whole. */
const cardSegmenter = () => (onCard ??= Segmenter.load({ ...small, device: "webgpu" }));

test("the card gives the command line's masks", async () => {
  const seg = await cardSegmenter();
  check(seg.report().device.startsWith("webgpu"), seg.report().device);
  const picture = await seg.encode(PNG);
  const answer = await picture.segment(WORDS, { labelMap: false });
  const { work, times, features } = seg.report();
  picture.close();
  for (const what of ["encode", "segment"]) {
    check(work[what].dispatches > 10 && work[what].moved >= work[what].least && work[what].least > 1e5, `${what}: ${JSON.stringify(work[what])}`);
  }
  // In integers two devices differ along edges, see ARCHITECTURE.md; in float32 the whole model is compared to 0.999.
  return { photo: "cat.jpg", base: "small", tolerance: 0.98, masks: facts(answer), report: { work, times, features } };
}, card);

test("the card paints, too", async () => {
  const seg = await cardSegmenter();
  await checkOverlay(await seg.encode(await strip()));
  return { times: seg.report().times };
}, card);

test("pictures go to the card as they are", async () => {
  const seg = await cardSegmenter();
  const image = await strip();
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d", { willReadFrequently: true, alpha: false }).putImageData(image, 0, 0);
  const video = new VideoFrame(canvas, { timestamp: 0, alpha: "discard" });
  let want;
  for (const source of [image, await createImageBitmap(canvas), canvas, video]) {
    const picture = await seg.encode(source);
    const { masks: [mask] } = await picture.segment(["cat"], { threshold: 0.2 });
    want ??= mask;
    check(mask.area > 0 && iou(mask, want) > 0.995, `${source.constructor.name}: IoU ${iou(mask, want)}`);
    picture.close();
  }
  check(video.displayWidth > 0, "the frame is still the page's");
  video.close();
}, card);

test("more prompts than the card keeps maps of", async () => {
  const seg = await cardSegmenter();
  const picture = await seg.encode(await strip());
  const many = ["cat", ...Array.from({ length: 34 }, (_, i) => `thing ${i}`), "sofa"];
  const { masks, labelMap } = await picture.segment(many, { threshold: 0.2 });
  same(masks.length, many.length, "masks");
  check(masks[0].area > 0 && labelMap.some((l) => l === 0), "the cat is found");
  picture.close();
}, card);

// transformers.js#1576
test("a card for several Segmenters, one after the other and at once", async () => {
  const answer = async (seg) => {
    const picture = await seg.encode(await strip());
    const { masks: [mask] } = await picture.segment(["cat"], { threshold: 0.2 });
    picture.close();
    return mask.rle();
  };
  const both = [await cardSegmenter(), await (onCard = Segmenter.load({ ...quick, device: "webgpu" }))];
  const want = [await answer(both[0]), await answer(both[1])];
  same(await Promise.all(both.map(answer)), want, "masks of both at once");
  both[0].close();
  same(await answer(both[1]), want[1], "the mask of the one that is left");
}, card);

// transformers.js#860, transformers.js#1739 and mediapipe#6352: what a picture took on the card comes back with close.
// transformers.js#796: pipelines are made before the first answer is there, never for one more picture.
test("nothing grows on the card with pictures", async () => {
  const seg = await cardSegmenter();
  const use = [];
  for (let i = 0; i < 5; i++) {
    const picture = await seg.encode(await strip());
    await picture.segment([["cat", "dog"][i % 2]]);
    (await picture.overlay("cat")).bitmap.close();
    const { pipelines, buffers, bytes } = await theCard("count");
    use.push([pipelines, buffers, bytes]);
    picture.close();
  }
  check(use[0].every((n) => n > 0), `it is counted: ${use[0]}`);
  for (const u of use.slice(2)) same(u, use[1], "pipelines, buffers and bytes after a picture");
}, card);

let onBadCard;
/** One Segmenter for all tests that lose its card, or fill it: the next one gets its new card. */
const badCardSegmenter = () => (onBadCard ??= Segmenter.load({ ...quick, device: "webgpu" }));

test("a card that is lost while it encodes", async () => {
  // A page that wants the card gets another one.
  const seg = await badCardSegmenter();
  const first = await seg.encode(await strip());
  await theCard("doom");
  const second = await seg.encode(await strip());
  check(seg.report().device.startsWith("webgpu"), seg.report().device);
  same((await second.segment(["cat"])).masks.length, 1, "masks of the picture that was on its way");
  await fails(first.segment(["cat"]), "device-lost", /encode it again/);
  first.close();
  second.close();
}, badCard);

test("a card that is lost while it segments, and between calls", async () => {
  const seg = await badCardSegmenter();
  for (const how of ["doom", "lose"]) {
    const picture = await seg.encode(await strip());
    await theCard(how);
    await fails(picture.segment(["cat"]), "device-lost");
    await fails(picture.segment(["cat"]), "device-lost", /encode it again/);
    picture.close();
  }
  const again = await seg.encode(await strip());
  same((await again.segment(["cat"])).masks.length, 1, "masks afterwards");
  const result = await again.overlay(["cat"]);
  result.bitmap.close();
  again.close();
}, badCard);

test("a card whose memory is full", async () => {
  const seg = await badCardSegmenter();
  await theCard("fill");
  await fails(seg.encode(await strip()), "out-of-memory", /memory/);
  await theCard("free");
  const picture = await seg.encode(await strip());
  same((await picture.segment(["cat"])).masks.length, 1, "masks once there is room");
  seg.close(); // another one's card is meant from here on
}, badCard);

// xrblocks#483
test("a card with the least that WebGPU promises", async () => {
  const { Segmenter } = await import("/smallcard/pmp/index.js");
  const seg = await Segmenter.load({ ...small, device: "webgpu" });
  const picture = await seg.encode(await strip());
  check((await picture.segment(["cat"], { threshold: 0.2 })).masks[0].area > 0, "the cat is found");
  const huge = new OffscreenCanvas(8000, 5000);
  huge.getContext("2d");
  const e = await seg.encode(await createImageBitmap(huge)).catch((e) => e);
  same(e.code, "out-of-memory", "code of a picture that does not fit");
  same((await picture.segment(["cat"])).masks.length, 1, "masks of the other picture");
  seg.close();
  return { features: seg.report().features };
}, badCard);

// transformers.js#1604, imgly#129
for (const [name, pattern] of [["nocard", /no graphics card/], ["hungcard", /did not answer/]]) {
  test(`no card: ${name}`, async () => {
    const { Segmenter } = await import(`/${name}/pmp/index.js`);
    const seg = await Segmenter.load();
    check(seg.report().device.startsWith("simd"), seg.report().device);
    check(pattern.test(reasonOf(seg, "webgpu")), reasonOf(seg, "webgpu"));
    seg.close();
    const e = await Segmenter.load({ device: "webgpu" }).catch((e) => e);
    same(e.code, "unsupported", "code when only the card will do");
    check(pattern.test(e.message), e.message);
  }, badCard);
}

// gpuweb#5291, nukebg#412: a card that is slower than the processor is not taken.
test("a trial chooses, and is remembered", async () => {
  const { Segmenter } = await import("/realcard/pmp/index.js");
  await caches.delete("pmp-cards");
  let seg = await Segmenter.load(quick);
  // SwiftShader cannot win.
  check(seg.report().device.startsWith("simd"), seg.report().device);
  const measured = reasonOf(seg, "webgpu");
  check(/card took .* ms and the processor .* ms/.test(measured), measured);
  seg.close();
  seg = await Segmenter.load(quick);
  check(/measured earlier/.test(reasonOf(seg, "webgpu")), reasonOf(seg, "webgpu"));
  seg.close();
  // As if it had won.
  const cache = await caches.open("pmp-cards");
  const [key] = await cache.keys();
  const facts = await (await cache.match(key)).json();
  await cache.put(key, new Response(JSON.stringify({ ...facts, device: "webgpu", reason: "the card is the faster one" })));
  seg = await Segmenter.load(quick);
  check(seg.report().device.startsWith("webgpu"), seg.report().device);
  check(/faster one \(measured earlier\)/.test(reasonOf(seg, "simd")), reasonOf(seg, "simd"));
  // Lost while it encodes: the processor takes over, unasked.
  await theCard("doom");
  const picture = await seg.encode(await strip());
  check(seg.report().device.startsWith("simd"), seg.report().device);
  check(/lost/.test(reasonOf(seg, "webgpu")), reasonOf(seg, "webgpu"));
  same((await picture.segment(["cat"])).masks.length, 1, "masks");
  seg.close();
  return { measured };
}, badCard);

test("what is remembered of a card grows old", async () => {
  const { findCard } = await import("../pmp/card.js");
  await caches.delete("pmp-cards");
  const find = (threads) => findCard({ precision: "int8", threads });
  const { remembered, remember } = await find(1);
  same(remembered, null, "remembered at first");
  await remember({ device: "webgpu", tuning: "a b" });
  same((await find(1)).remembered.tuning, "a b", "remembered");
  same((await find(2)).remembered, null, "remembered for another number of threads");
  const cache = await caches.open("pmp-cards");
  const [key] = await cache.keys();
  for (const kept of [JSON.stringify({ device: "cpu", at: Date.now() - 15 * 24 * 3600e3 }), "{", "null"]) {
    await cache.put(key, new Response(kept));
    same((await find(1)).remembered, null, `remembered of ${kept}`);
  }
}, badCard);

// ---------------------------------------------------------------------------
// Threads

const isolated = ["isolated"];

// onnxruntime#19148
test("as many threads as the page may have", async () => {
  const { threads, reasons } = (await segmenter()).report();
  const why = reasons.find((r) => r.device === "threads")?.reason;
  if (mode === "isolated" && navigator.hardwareConcurrency > 1) {
    same([threads, why], [Math.min(navigator.hardwareConcurrency, 8), undefined], "threads and reason");
  } else {
    same(threads, 1, "threads");
    check(/Cross-Origin-Embedder-Policy|one processor/.test(why), `the reason says what to do: ${why}`);
  }
  for (const threads of [0, -1, 1.5, NaN, "2", null]) await fails(Segmenter.load({ threads }), "bad-input", /threads/);
  await fails(Segmenter.load({ precision: "f16" }), "bad-input", /f16/);
}, everywhere);

test("pictures from other hosts on an isolated page", async () => {
  const seg = await segmenter();
  const other = (mode) => `http://localhost:${location.port}/${mode}/examples/cat.jpg`;
  const picture = await seg.encode(other("cors"));
  same((await picture.segment(["cat"])).masks[0].present, true, "a picture that its host allows: present");
  picture.close();
  const img = new Image();
  img.crossOrigin = "anonymous";
  img.src = other("cors");
  (await seg.encode(img)).close();
  await fails(seg.encode(other("strict")), "network", /CORS/);

  // What may be shown but not read.
  const tainted = new Image();
  tainted.src = other("foreign");
  await fails(seg.encode(tainted), "bad-input", /crossorigin/);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: tainted.width, height: tainted.height });
  canvas.getContext("2d").drawImage(tainted, 0, 0);
  await fails(seg.encode(canvas), "bad-input", /crossorigin/);
  await works(seg);

  await import("../pmp/element.js");
  const element = document.createElement("pmp-segment");
  element.src = other("cors");
  element.prompts = "cat";
  document.body.append(element);
  await new Promise((resolve, reject) => {
    element.addEventListener("segmented", resolve, { once: true });
    element.addEventListener("error", (e) => reject(e.detail), { once: true });
  });
  const shown = element.shadowRoot.querySelector("img");
  await shown.decode();
  check(shown.naturalWidth > 0, "the element shows the picture");
  element.remove();
}, isolated);

test("threads under the strict policy", async () => {
  const { Segmenter } = await import("/both/pmp/index.js");
  const seg = await Segmenter.load();
  same(seg.report().threads, (await segmenter()).report().threads, "threads");
  seg.close();
}, isolated);

/** The browser's worker threads as the server sees them: {id: milliseconds of processor time}. */
async function workerThreads() {
  const all = await (await fetch("/threads")).json();
  if (!all?.length) throw new Skip("this system does not tell what threads a process has");
  return Object.fromEntries(all.map((t) => [t.id, t.millis]));
}

test("any number of threads gives the same bits", async () => {
  const image = await strip();
  let want;
  for (const threads of [1, 2, "auto", 99]) {
    await withOwn({ threads }, async (seg) => {
      const report = seg.report();
      same(report.threads, threads === 1 ? 1 : threads === 2 ? 2 : Math.min(navigator.hardwareConcurrency, threads === 99 ? 99 : 8), `threads of ${threads}`);
      const why = report.reasons.find((r) => r.device === "threads")?.reason ?? "";
      check(threads === 1 ? /asked/.test(why) : threads === 99 ? /no more processors/.test(why) : !why, `the reason for ${threads} threads: "${why}"`);
      const picture = await seg.encode(image);
      const answer = JSON.stringify(facts(await picture.segment(WORDS, { threshold: 0.2 })));
      want ??= answer;
      check(answer === want, `${threads} threads answer like one: ${answer}, want ${want}`);
    });
  }
}, isolated);

test("two threads on many pictures", async () => {
  const image = await strip();
  await withOwn({ threads: 2 }, async (seg) => {
    let want, memory;
    for (let i = 0; i < 160; i++) {
      const picture = await seg.encode(image);
      const answer = JSON.stringify(facts(await picture.segment(["cat", "sofa"], { threshold: 0.2 })));
      picture.close();
      want ??= answer;
      check(answer === want, `picture ${i}: ${answer}, want ${want}`);
      // Go's heap comes to its full size after some 80 of these.
      if (i === 99) memory = seg.report().memory;
    }
    same(seg.report().memory.kernels, memory.kernels, "bytes of the kernels");
    check(seg.report().memory.engine <= 1.03 * memory.engine, `bytes of the engine: ${seg.report().memory.engine}, after 100 pictures ${memory.engine}`);
  });
}, isolated);

test("idle threads use no processor", async () => {
  await withOwn({}, async (seg) => {
    await seg.encode(await strip());
    await pause(300);
    const before = await workerThreads();
    await pause(1500);
    const after = await workerThreads();
    const used = Object.entries(after).map(([id, ms]) => ms - (before[id] ?? 0));
    check(used.length >= seg.report().threads, `there are threads: ${used.length}`);
    // Two busy threads would have used 3000.
    check(used.reduce((a, b) => a + b, 0) < 150, `milliseconds of each thread within 1.5 s: ${used}`);
  });
}, isolated);

test("close ends the threads", async () => {
  const { threads } = (await segmenter()).report();
  // Browsers have workers of their own, in other processes: those where ours are count.
  const count = async (process) => Object.keys(await workerThreads()).filter((id) => id.startsWith(process)).length;
  const processOf = (id) => id.slice(0, id.indexOf("/task"));
  const old = await workerThreads();
  const many = await Promise.all([1, 2, 3].map(() => Segmenter.load()));
  const picture = await many[0].encode(await strip());
  const more = Object.keys(await workerThreads()).filter((id) => !(id in old));
  const process = more.map(processOf).sort((a, b) => more.filter((id) => processOf(id) === b).length - more.filter((id) => processOf(id) === a).length)[0];
  const before = await count(process);
  check(before >= 4 * threads, `threads of four: ${before}`);
  const busy = picture.segment(["cat"]).catch(() => {});
  many.forEach((s) => s.close());
  await busy;
  let left;
  const start = performance.now();
  // Chromium takes seconds to end workers that sleep.
  while ((left = await count(process)) > before - 3 * threads && performance.now() - start < 50_000) await pause(200);
  check(left <= before - 3 * threads, `threads: ${left} are left of ${before}`);
  return { ended: performance.now() - start };
}, isolated);

for (const [name, pattern] of [["nothreads", /did not start/], ["deafthreads", /did not start.*answer/]]) {
  test(`threads that cannot start: ${name}`, async () => {
    const { Segmenter } = await import(`/${name}/pmp/index.js`);
    const seg = await Segmenter.load();
    const { threads, reasons } = seg.report();
    same(threads, 1, "threads");
    const why = reasons.find((r) => r.device === "threads").reason;
    check(pattern.test(why), why);
    const picture = await seg.encode(await strip());
    same((await picture.segment(["cat"])).masks.length, 1, "masks");
    seg.close();
    return { why };
  }, isolated);
}

// ---------------------------------------------------------------------------
// What people do wrong

/** A picture that is decoded to 0×0 pixels, and a file that says so. */
async function nothings() {
  const svg = new Image();
  svg.src = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='0' height='0'/>";
  const png = new Uint8Array(await (await fetch(PNG)).arrayBuffer());
  png.fill(0, 16, 24); // its sides
  return [svg, new Blob([png], { type: "image/png" })];
}

// mediapipe: a message that names the sides, "0x3"
test("pictures that cannot be used", async () => {
  const seg = await segmenter();
  const empty = document.createElement("canvas");
  for (const [width, height] of [[0, 3], [3, 0], [0, 0]]) {
    Object.assign(empty, { width, height });
    await fails(seg.encode(empty), "bad-input", new RegExp(`empty \\(${width}×${height}`));
    await fails(seg.encode({ data: new Uint8Array(0), width, height }), "bad-input", new RegExp(`empty \\(${width}×${height}`));
  }
  for (const nothing of await nothings()) await fails(seg.encode(nothing), "bad-input");
  await fails(seg.encode(new Image()), "bad-input", /src/);
  await fails(seg.encode(document.createElement("video")), "bad-input", /video/);
  for (const odd of [null, undefined, 7, {}, [], document.body]) await fails(seg.encode(odd), "bad-input");
  await fails(seg.encode(new Blob([])), "bad-input", /picture/);
  await fails(seg.encode(new Blob(["no picture"], { type: "image/jpeg" })), "bad-input", /picture/);
  const jpeg = new Uint8Array(await (await fetch(PHOTO)).arrayBuffer());
  const png = new Uint8Array(await (await fetch(PNG)).arrayBuffer());
  for (const part of [0.01, 0.5, 0.999]) {
    await fails(seg.encode(new Blob([jpeg.slice(0, jpeg.length * part)])), "bad-input", /damaged/);
    await fails(seg.encode(new Blob([png.slice(0, png.length * part)])), "bad-input", /damaged/);
  }
  const broken = new Image();
  broken.src = "suite.js";
  await fails(seg.encode(broken), "bad-input", /damaged|loaded/);
  await fails(seg.encode("/damage/none/no-such-picture.jpg"), "network", /404/);
  const gone = await createImageBitmap(await blobOf(PHOTO));
  gone.close();
  await fails(seg.encode(gone), "bad-input");
  await works(seg);
});

test("a corrupt JPEG gives an error or the picture as far as it goes", async () => {
  const seg = await segmenter();
  const jpeg = new Uint8Array(await (await fetch(PHOTO)).arrayBuffer());
  for (let i = jpeg.length >> 1; i < (jpeg.length >> 1) + 400; i++) jpeg[i] = (jpeg[i] * 7 + 13) & 255;
  try {
    const picture = await seg.encode(new Blob([jpeg], { type: "image/jpeg" })); // browsers forgive much
    await picture.segment(["cat"]);
    picture.close();
  } catch (e) {
    same(e.code, "bad-input", "code");
  }
});

test("a picture of more than 50 megapixels", async () => {
  const seg = await segmenter();
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: 8000, height: 7000 });
  await fails(seg.encode(canvas), "bad-input", /8000.7000/);
});

test("pictures of odd shapes", async () => {
  const seg = await segmenter();
  for (const [width, height] of [[20000, 3], [3, 20000], [1, 1], [2, 700], [33, 31]]) {
    const image = new ImageData(width, height);
    image.data.forEach((_, i) => (image.data[i] = (i * 37) & 255));
    const picture = await seg.encode(image);
    const { masks, labelMap } = await picture.segment(["cat", "dog"], { threshold: 0.1 });
    same([masks.length, labelMap.length], [2, width * height], `answer for ${width}×${height}`);
    picture.close();
  }
});

test("prompts that cannot be used", async () => {
  const seg = await segmenter();
  const picture = await seg.encode(PHOTO);
  await fails(picture.segment([]), "bad-input", /no prompt/);
  await fails(picture.segment(), "bad-input", /no prompt/);
  await fails(picture.segment([""]), "bad-input", /empty/);
  await fails(picture.segment(["cat", " , "]), "bad-input", /empty/);
  await fails(picture.segment([7]), "bad-input", /string/);
  await fails(picture.segment(Array.from({ length: 300 }, (_, i) => `thing ${i}`)), "bad-input", /255/);
  for (const threshold of [0, 1, -1, NaN, "x"]) await fails(picture.segment(["cat"], { threshold }), "bad-input", /threshold/);
  const odd = ["café", "猫", "🐈", "x".repeat(10_000), "\u0000\u0007", "cat ".repeat(200), "\ud800"];
  same((await picture.segment(odd)).masks.length, odd.length, "answers to odd words");
  same((await picture.segment(new Set(["cat"]))).masks.length, 1, "answers to a Set");
  same((await picture.segment(Array.from({ length: 255 }, (_, i) => `thing ${i}`))).masks.length, 255, "answers to 255 words");
  picture.close();
});

// ---------------------------------------------------------------------------
// Stopping and closing

// web-llm#499, transformers.js#1182
test("encode and segment can be stopped", async () => {
  const seg = await segmenter();
  await fails(seg.encode(PHOTO, { signal: AbortSignal.abort() }), "aborted");
  const running = new AbortController(), waiting = new AbortController();
  const canvas = await canvasOf(PNG);
  const a = seg.encode(canvas, { signal: running.signal });
  const b = seg.encode(canvas, { signal: waiting.signal });
  const c = seg.encode(canvas);
  const checks = [fails(a, "aborted"), fails(b, "aborted")];
  await pause(2); // the first one runs, which takes some 20 ms at the least
  running.abort();
  waiting.abort();
  await Promise.all(checks);
  const picture = await c;
  const before = seg.report().counts.segment;
  const stop = new AbortController();
  const d = picture.segment(["cat"], { signal: stop.signal });
  stop.abort();
  await fails(d, "aborted");
  same((await picture.segment(["cat"])).masks.length, 1, "masks after a stopped call");
  check(seg.report().counts.segment <= before + 2, "counts");
  picture.close();
});

// transformers.js#1576
test("close in any state", async () => {
  const seg = await Segmenter.load();
  const picture = await seg.encode(PHOTO);
  picture.close();
  picture.close();
  await fails(picture.segment(["cat"]), "bad-input", /closed/);
  const other = await seg.encode(PHOTO);
  const { masks } = await other.segment(["cat"]);
  const calls = [seg.encode(PHOTO), seg.encode(PHOTO), other.segment(["cat"])].map((p) => fails(p, "aborted", /closed/));
  seg.close();
  seg.close();
  await Promise.all(calls);
  await fails(seg.encode(PHOTO), "aborted", /closed/);
  await fails(other.segment(["cat"]), "bad-input", /closed/);
  other.close();
  check(masks[0].toBytes().length === masks[0].width * masks[0].height, "masks outlive the Segmenter");
  let thrown = 0;
  try { new Segmenter(); } catch { thrown++; }
  same(thrown, 1, "a constructor that is not for the page throws");
  await works();
});

/** The package as another mode of the server sends it: each has modules, and so a Segmenter, of its own. */
const packageOf = (other) => import(`/${other}/pmp/index.js`);

test("a worker that the browser ends", async () => {
  const { Segmenter } = await packageOf("mortal");
  const end = () => new BroadcastChannel("mortal").postMessage("end");
  const expect = async (promise) => {
    const e = await promise.then(() => null, (e) => e);
    same(e?.code, "device-lost", "code");
    check(/ended the worker/.test(e.message), e.message);
  };
  const seg = await Segmenter.load();
  const picture = await seg.encode(PHOTO);
  const calls = [seg.encode(PHOTO), picture.segment(["cat"]), seg.encode(PHOTO)];
  end();
  await Promise.all(calls.map((c) => c.catch(() => {}))); // none waits for ever
  await expect(seg.encode(PHOTO));
  const idle = await Segmenter.load();
  await idle.encode(PHOTO);
  end();
  await pause(300);
  await expect(idle.encode(PHOTO));
  idle.close();
  const next = await Segmenter.load();
  await works(next);
  next.close();
});

test("a disk without room", async () => {
  const { Segmenter } = await packageOf("full");
  const seg = await Segmenter.load();
  await works(seg); // weights are used although they are not kept
  seg.close();
});

test("a picture for which the kernels' memory has no room", async () => {
  const { Segmenter } = await packageOf("nogrow");
  const seg = await Segmenter.load();
  if (seg.report().device === "scalar") throw new Skip("pure Go has one memory, see the next test");
  const large = { data: new Uint8Array(4 * 3000 * 2000), width: 3000, height: 2000 };
  const picture = await seg.encode(await strip());
  // The words of works: which are read together tells in the last digits of integers.
  const answer = async () => facts(await picture.segment(WORDS, { threshold: 0.2 }));
  const want = await answer();
  await ask("nogrow", "fill");
  for (let i = 0; i < 3; i++) await fails(seg.encode(large), "out-of-memory", /memory/);
  same(await answer(), want, "the open picture's mask");
  await ask("nogrow", "free");
  (await seg.encode(large)).close();
  same(await answer(), want, "the open picture's mask");
  await works(seg);
  seg.close();
});

test("an engine whose memory is full", async () => {
  const { Segmenter } = await packageOf("tight");
  const seg = await Segmenter.load();
  await works(seg);
  const [width, height] = [6000, 5000]; // label maps have as many bytes
  const outcome = await (async () => (await seg.encode({ data: new Uint8Array(4 * width * height), width, height })).segment(["cat"]))().catch((e) => e);
  check(["device-lost", "out-of-memory"].includes(outcome.code) && /memory|smaller/.test(outcome.message), `an error: ${outcome.code} ${outcome.message}`);
  if (outcome.code === "device-lost") await fails(seg.encode(PHOTO), "device-lost", /new Segmenter/);
  seg.close();
  const next = await Segmenter.load();
  await works(next);
  next.close();
  return { message: outcome.message };
});

// onnxruntime#20876
test("a service worker is told that it cannot have workers", async () => {
  const registration = await navigator.serviceWorker?.register("service.js", { type: "module" }).catch((e) => e);
  if (!registration?.installing) throw new Skip(`no service worker of modules: ${registration}`);
  try {
    const channel = new MessageChannel();
    const answer = new Promise((r) => (channel.port1.onmessage = ({ data }) => r(data)));
    registration.installing.postMessage("load", [channel.port2]);
    const { code, message } = await answer;
    same(code, "unsupported", "code");
    check(/page or a worker/.test(message), message);
  } finally {
    await registration.unregister();
  }
});

// mediapipe#5539, mediapipe#6352
test("a thousand answers", async () => {
  await withOwn({}, async (seg) => {
    const image = await strip();
    if (seg.report().device === "scalar") throw new Skip("it would take minutes without SIMD");
    const picture = await seg.encode(image);
    const use = [];
    for (let i = 0; i < 1000; i++) {
      await picture.segment([["cat", "dog"][i % 2], `thing ${i % 50}`]);
      if (i % 100 === 99) use.push(seg.report().memory.engine + seg.report().memory.kernels);
    }
    check(use.at(-1) <= use[4] * 1.05, `bytes after each hundred: ${use}`);
    picture.close();
    return { use };
  });
});

test("a storm of aborts", async () => {
  const seg = await segmenter();
  const image = await strip();
  const ask = ["segment", "proposals", "overlay"];
  for (let round = 0; round < 4; round++) {
    const outcomes = await Promise.all(Array.from({ length: 60 }, async (_, i) => {
      const stop = new AbortController();
      setTimeout(() => stop.abort(), Math.random() * 60 * (round + 1));
      try {
        const picture = await seg.encode(image, { signal: stop.signal });
        try {
          await picture[ask[i % 3]](["cat"], { signal: stop.signal });
        } finally {
          picture.close();
        }
        return "done";
      } catch (e) {
        return e.code ?? e.message;
      }
    }));
    check(outcomes.every((o) => o === "done" || o === "aborted"), `outcomes: ${[...new Set(outcomes)]}`);
    check(outcomes.filter((o) => o === "aborted").length > 10, "many were stopped");
    await works(seg);
  }
});

// transformers.js#1242
test("memory does not grow with pictures", async () => {
  await withOwn({}, async (seg) => {
    const use = [];
    for (let i = 0; i < 6; i++) {
      const picture = await seg.encode(PHOTO);
      await picture.segment(["cat"]);
      picture.close();
      await picture.segment(["cat"]).catch(() => {});
      const { engine, kernels } = seg.report().memory;
      use.push(engine + kernels);
    }
    check(use.at(-1) <= use[1] * 1.1, `bytes after each picture: ${use}`);
  });
});

// ---------------------------------------------------------------------------
// The element and the demo page

test("<pmp-segment>", async () => {
  await import("../pmp/element.js");
  const element = document.createElement("pmp-segment");
  const next = (type) => new Promise((resolve, reject) => {
    element.addEventListener(type, (e) => resolve(e.detail), { once: true });
    if (type !== "error") element.addEventListener("error", (e) => reject(e.detail), { once: true });
  });
  element.src = PHOTO;
  element.prompts = "cat; sofa, couch; helicopter";
  document.body.append(element);
  const result = await next("segmented");
  same(result.masks.map((m) => m.text), ["cat", "sofa, couch", "helicopter"], "prompts");
  check(element.shadowRoot.textContent.includes("not in this picture"), "the absent word is listed as absent");
  const parts = (name) => [...element.shadowRoot.querySelectorAll(`[part~=${name}]`)];
  same([parts("item").length, parts("absent").length, parts("image").length], [3, 2, 1], "parts");
  const [cat] = parts("item"), overlay = parts("overlay")[0];
  const painted = () => overlay.getContext("2d").getImageData(0, 0, overlay.width, overlay.height).data.some((v) => v > 0);
  check(painted(), "masks are painted");
  cat.focus();
  check(element.shadowRoot.activeElement === cat, "the keyboard reaches the words that are there");
  cat.click();
  same([cat.getAttribute("aria-pressed"), painted()], ["true", true], "shown alone");
  element.threshold = "0.99";
  check((await next("segmented")).masks[0].area < result.masks[0].area, "a higher threshold gives a smaller mask");
  element.removeAttribute("threshold");
  same((await next("segmented")).masks[0].area, result.masks[0].area, "area without a threshold");
  element.prompts = "cat";
  same((await next("segmented")).masks.length, 1, "masks after the prompts changed");
  element.src = "/damage/none/no-such-picture.jpg";
  same((await next("error")).code, "network", "code for a missing picture");
  check(parts("message")[0].textContent.length > 15, "the element says what is wrong");
  element.remove();
});

test("the demo page", async () => {
  const frame = document.createElement("iframe");
  Object.assign(frame, { width: 1000, height: 900, src: "../" });
  document.body.append(frame);
  const until = async (what, f) => {
    for (let i = 0; i < 900; i++) {
      try {
        const v = f();
        if (v) return v;
      } catch { /* not there yet */ }
      await pause(100);
    }
    throw new Error(`waited in vain until ${what}; the page says: ${frame.contentDocument?.body?.innerText.slice(0, 400)}`);
  };
  const page = () => frame.contentDocument;
  const done = () => page().documentElement.dataset.state === "done";
  await until("the example is segmented", done);
  const view = frame.contentWindow;
  let shift = null;
  if (view.PerformanceObserver.supportedEntryTypes.includes("layout-shift")) {
    shift = await new Promise((resolve) => {
      let sum = 0;
      const observer = new view.PerformanceObserver((list) => list.getEntries().forEach((e) => e.hadRecentInput || (sum += e.value)));
      observer.observe({ type: "layout-shift", buffered: true });
      setTimeout(() => resolve(sum), 200);
    });
    check(shift < 0.02, `the layout does not shift: ${shift}`);
  }
  const notes = () => [...page().querySelectorAll("#chips .chip")].map((c) => [c.querySelector("b").textContent, c.querySelector("small").textContent]);
  check(notes().length >= 2 && notes().every(([, note]) => /sure|not in this picture/.test(note)), `every word has an answer: ${JSON.stringify(notes())}`);
  check(notes().some(([, note]) => /sure/.test(note)), "something is found");
  check(page().querySelectorAll("#labels span").length > 0, "names stand in the picture");
  const paint = page().getElementById("paint");
  const painted = () => paint.getContext("2d").getImageData(0, 0, paint.width, paint.height).data.some((v) => v > 0);
  check(painted(), "masks are painted");

  const type = async (text) => {
    const input = page().getElementById("word");
    input.value = text;
    page().getElementById("form").requestSubmit();
    await pause(0);
    await until("the new word has its answer", done);
  };
  const encodes = page().documentElement.dataset.encodes;
  await type("zebra");
  same(notes().at(-1), ["zebra", "not in this picture"], "the absent word");
  check(page().querySelector(".chip:last-child").classList.contains("absent"), "an absent word looks absent");
  await type(" sofa ,couch ");
  same(notes().at(-1)[0], "sofa, couch", "synonyms");
  same(page().documentElement.dataset.encodes, encodes, "encodings after new words");

  const before = notes().length;
  page().querySelector(".chip:last-child .remove").click();
  await pause(0);
  await until("a word less", done);
  same(notes().length, before - 1, "words");
  check(page().querySelector(".chip .remove").getAttribute("aria-label").startsWith("Remove "), "the buttons have names");

  page().querySelector(".chip .name").click();
  same(page().querySelectorAll("#labels span").length, 1, "names while one word is shown alone");
  page().querySelector(".chip .name").click();

  // A mask under the pointer is shown alone; a click keeps it so and offers it.
  const area = page().getElementById("stage").getBoundingClientRect();
  const point = (type, x, y) => page().getElementById("stage").dispatchEvent(new view.PointerEvent(type, { clientX: x, clientY: y, pointerType: "mouse", bubbles: true }));
  const label = page().querySelector("#labels span").getBoundingClientRect();
  const spot = [label.x + label.width / 2, label.y + label.height / 2];
  point("pointermove", ...spot);
  same(page().querySelectorAll("#labels span").length, 1, "names while the pointer is on a mask");
  check(page().getElementById("take").hidden, "nothing is offered yet");
  point("pointermove", area.x + 2, area.y + 2);
  check(page().querySelectorAll("#labels span").length > 1, "all names again");
  point("click", ...spot);
  check(!page().getElementById("take").hidden, "the clicked mask is offered");
  const taken = async (form) => {
    page().getElementById("take-form").value = form;
    // The policy lets nobody fetch what lies behind a blob: address, so the file is caught before it gets one. Nor is it
    // downloaded: this page's policy, which is that of its frames, forbids it in Firefox.
    const { createObjectURL } = view.URL, { click } = view.HTMLAnchorElement.prototype;
    view.HTMLAnchorElement.prototype.click = () => {};
    const file = new Promise((done) => {
      view.URL.createObjectURL = (f) => (done(f), createObjectURL(f));
    });
    page().getElementById("take-save").click();
    try {
      return await file;
    } finally {
      view.URL.createObjectURL = createObjectURL;
      await pause(50); // the link is clicked after it has its address
      view.HTMLAnchorElement.prototype.click = click;
    }
  };
  const json = async (form) => JSON.parse(await (await taken(form)).text());
  const rle = await json("rle"), outline = await json("polygons");
  check(rle.rle.counts.length > 10 && rle.rle.size[1] === rle.width && rle.area > 0, "run lengths");
  check(outline.polygons.length > 0 && outline.score > 0.5 && outline.text.length > 0, "polygons");
  const cutout = await taken("cutout"), cut = await createImageBitmap(cutout);
  same([cut.width, cut.height], rle.bbox.slice(2), "the cut-out's sides");
  check(/^[a-z]+\.png$/.test(cutout.name), `the cut-out's name: ${cutout.name}`);
  const whole = await createImageBitmap(await taken("mask"));
  same([whole.width, whole.height], [rle.width, rle.height], "the mask's sides");
  point("click", ...spot);
  check(page().getElementById("take").hidden, "another click lets go");

  // What the words do to the proposals.
  const choose = async (view) => {
    page().querySelector(`[name=view][value=${view}]`).click();
    await pause(0);
    await until("the view has its answer", done);
    return page().getElementById("status").textContent;
  };
  check(/^\d+ proposals by a decoder that reads the words/.test(await choose("with")), "the page tells of proposals");
  check(painted(), "proposals are painted");
  check(/may not read the words/.test(await choose("without")), "the page tells of proposals without the words");
  await choose("masks");
  check(page().querySelectorAll("#labels span").length > 0, "names are back");
  same(page().documentElement.dataset.encodes, encodes, "encodings after other views");

  // An own picture, dropped in.
  const transfer = new view.DataTransfer();
  transfer.items.add(new view.File([await blobOf(new URL("../examples/cat.jpg", location.href))], "own.jpg", { type: "image/jpeg" }));
  page().dispatchEvent(new view.DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  await until("the page encodes it", () => page().documentElement.dataset.encodes !== encodes);
  await until("the own picture is segmented", done);
  check(page().getElementById("photo").src.startsWith("blob:"), "the own picture is shown");
  same(page().documentElement.dataset.encodes, String(Number(encodes) + 1), "encodings after a new picture");

  // A picture of the camera, where the browser was started with a false one.
  if (navigator.userAgent.includes("Chrome")) {
    const before = page().documentElement.dataset.encodes;
    page().getElementById("camera").click();
    await until("the camera shows something", () => page().querySelector("dialog[open] video").videoWidth > 0);
    page().getElementById("shoot").click();
    await until("the camera's picture is encoded", () => page().documentElement.dataset.encodes !== before);
    await until("the camera's picture is segmented", done);
    check(!page().querySelector("dialog[open]"), "the dialog is closed");
  }

  // By its address: from here it can be read, and the policy lets other hosts' through.
  check(/img-src[^;]* https:/.test((await fetch("../")).headers.get("content-security-policy")), "pictures of other hosts");
  page().getElementById("address").click();
  page().getElementById("address-text").value = PHOTO;
  const encoded = page().documentElement.dataset.encodes;
  page().querySelector("#address-form button").click();
  await until("the picture at the address is encoded", () => page().documentElement.dataset.encodes !== encoded);
  await until("it is segmented", done);
  page().getElementById("address").click();
  page().getElementById("address-text").value = new URL("../nothing.jpg", PHOTO).href;
  page().querySelector("#address-form button").click();
  await until("the page says that there is no picture", () => /cannot be read/.test(page().getElementById("status").textContent));

  // A file that is no picture.
  const bad = new view.DataTransfer();
  bad.items.add(new view.File(["no"], "no.jpg", { type: "image/jpeg" }));
  page().dispatchEvent(new view.DragEvent("drop", { dataTransfer: bad, bubbles: true, cancelable: true }));
  await until("the page says what is wrong", () => page().getElementById("status").classList.contains("wrong"));

  // A shared link.
  const { origin, pathname } = view.location;
  page().querySelector('.thumb[data-src="examples/coffee.jpg"]').click();
  await until("another example is segmented", () => page().getElementById("photo").src.endsWith("coffee.jpg") && done());
  await type("sofa, couch");
  page().getElementById("share").click();
  await until("the page says where the link is", () => /link/.test(page().getElementById("status").textContent));
  same(view.location.href, `${origin}${pathname}#words=${encodeURIComponent("cup, mug;dog;sofa, couch").replaceAll("%20", "+")}&example=coffee`, "the link");
  const hostile = encodeURIComponent(`<img src=x onerror=alert(1)>;${"long".repeat(100)};cat`);
  view.location.hash = `words=${hostile}&example=cat`;
  await until("the link's picture is shown", () => page().getElementById("photo").src.endsWith("cat.jpg"));
  await until("the link's words are answered", () => notes().length === 2 && done());
  same(notes().map(([name]) => name), ["<img src=x onerror=alert(1)>", "cat"], "words of a link");
  same(page().querySelectorAll("#chips img").length, 0, "pictures among the words");
  frame.src = `${pathname}?again#words=${encodeURIComponent("dog;".repeat(200) + Array.from({ length: 200 }, (_, i) => `thing ${i}`).join(";"))}&example=../../x`;
  await until("a page opened by a link is segmented", () => frame.contentWindow.location.search === "?again" && page().getElementById("photo").src.endsWith("astronaut.jpg") && done());
  same(notes().map(([name]) => name), ["dog"], "words of an overlong link, each once");

  frame.remove();
  return { shift };
});

// transformers.js#774, onnxruntime#19708, lion-reader#1287: neither blob: workers nor made-up functions. What breaks the
// policy within a worker the browser tells the server (internal/browsertest).
test("nothing broke the Content-Security-Policy", () => same(violations, [], "violations"), everywhere);

// ---------------------------------------------------------------------------

const shown = document.getElementById("log");

async function send(what) {
  shown.textContent += `${what.test ?? what.log ?? "finished"}${what.error ? `: FAILED: ${what.error}` : what.test ? ": ok" : ""}\n`;
  await fetch("/report", { method: "POST", body: JSON.stringify(what) }).catch(() => {});
}

addEventListener("error", (e) => send({ log: `error: ${e.message}` }));
addEventListener("unhandledrejection", (e) => send({ log: `unhandled: ${e.reason?.stack ?? e.reason}` }));

for (const { name, f, minutes } of tests) {
  const start = performance.now();
  const outcome = { test: name };
  try {
    // In the long run every test ends; one that hangs must not hide the others.
    outcome.data = await Promise.race([f(), pause(minutes * 60_000).then(() => { throw new Error(`no end after ${minutes} minutes`); })]);
  } catch (e) {
    if (e instanceof Skip) outcome.skip = e.message;
    else outcome.error = e instanceof PMPError ? `${e.code}: ${e.message}` : `${e.message}`;
  }
  outcome.millis = performance.now() - start;
  await send(outcome);
}
await send({ finish: true, browser: navigator.userAgent });
