// Times our engine beside onnxruntime-web and LiteRT.js in one Chromium, and prints a table or JSON; started by run.sh.
//
//   node bench.mjs --package DIR --cache DIR --pictures DIR --chromium PROGRAM [--json] [--write] [--ops]
//                  [--rounds 15] [--loads 3] [--only REGEXP] [--software]
//
// A small server gives out the engines and the page (bench.html, page.js), which posts what it measured. First each engine
// gets a browser of its own, several times, for its loading times and its memory; then all are timed in one page, in turns.
// Where a browser has a graphics card for WebGPU, the same is done there at the end, in browsers that may use it.
import { execFileSync, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import zlib from "node:zlib";
import { parseArgs } from "node:util";
import { markdown, opsSummary, opsTable } from "./report.mjs";

const here = import.meta.dirname;
const { values: options } = parseArgs({ options: {
  package: { type: "string" }, cache: { type: "string" }, pictures: { type: "string" }, chromium: { type: "string" },
  rounds: { type: "string", default: "15" }, loads: { type: "string", default: "3" }, only: { type: "string", default: "." },
  json: { type: "boolean" }, write: { type: "boolean" }, ops: { type: "boolean" },
  software: { type: "boolean" },
} });
const PICTURE = "astronaut.jpg";
const WARM = 4; // rounds that are not counted
const LIMIT = 20 * 60e3; // ms until a browser is given up
const MIB = 1 << 20;
const say = (text) => console.error(`bench: ${text}`);

// ------------------------------------------------------------------------------------------------------------ what runs

const cores = os.availableParallelism();
const cached = (name) => path.join(options.cache, name);
const suffix = (precision) => (precision === "int8" ? "-int8" : "");

/** All engines with all numbers of threads. The first is what the masks of the others are compared with. */
function rows() {
  const few = [...new Set([1, cores])], many = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32].filter((n) => n < cores);
  const all = few.map((threads) => ({ engine: "pmp-f32", threads }));
  for (const threads of [...many, cores]) all.push({ engine: "pmp-int8", threads });
  for (const [peer, format] of [["onnxruntime", "onnx"], ["litert", "tflite"]]) {
    for (const precision of ["f32", "int8"]) {
      // Without its graphs an engine has no rows.
      if (fs.existsSync(cached(`encode${suffix(precision)}.${format}`))) all.push(...few.map((threads) => ({ engine: `${peer}-${precision}`, threads })));
    }
  }
  return all.filter(({ engine, threads }) => new RegExp(options.only).test(`${engine} ${threads}`));
}

/** What runs on a graphics card. */
function cardRows() {
  const all = [{ engine: "pmp-f32" }, { engine: "pmp-int8" }, { engine: "onnxruntime-f32" }].map((row) => ({ ...row, threads: 1, device: "webgpu" }));
  return all.filter(({ engine, device }) => new RegExp(options.only).test(`${engine} ${device}`));
}

const named = ({ engine, threads, device }) => `${engine} ${device ? `on ${device}` : `with ${threads} thread(s)`}`;
const leftOut = (row, error) => say(`${named(row)} is left out: ${error.split("\n")[0]}`);

// --------------------------------------------------------------------------------------------------------------- server

const folders = {
  "/pmp/": options.package, "/cache/": options.cache, "/pictures/": options.pictures,
  "/ort/": path.join(here, "node_modules/onnxruntime-web/dist"), "/lite/": path.join(here, "node_modules/@litertjs"),
};
const OWN = ["bench.html", "page.js", "peer.js", "answer.js", "profile.js", "ceiling.js"];
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };
/** Every file may be kept by the browser, since each browser begins with an empty profile. */
const HEADERS = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp", "cache-control": "max-age=3600" };

let plan, finish;

const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  if (request.method === "POST") {
    let body = "";
    for await (const part of request) body += part;
    if (pathname === "/progress") say(JSON.parse(body));
    response.end(pathname === "/result" ? JSON.stringify({ reload: finish(JSON.parse(body)) }) : "{}");
    return;
  }
  if (pathname === "/plan") {
    response.writeHead(200, { ...HEADERS, "cache-control": "no-store" });
    return response.end(JSON.stringify(plan));
  }
  const folder = Object.keys(folders).find((f) => pathname.startsWith(f));
  const file = folder ? path.join(folders[folder], pathname.slice(folder.length)) : OWN.includes(pathname.slice(1)) ? path.join(here, pathname) : "";
  fs.readFile(file, (error, bytes) => {
    // A bundler would resolve this name; a worker has nothing that could.
    if (pathname === "/lite/core/dist/index.js") bytes = bytes.toString().replace('"@litertjs/wasm-utils"', '"/lite/wasm-utils/dist/index.js"');
    response.writeHead(error ? 404 : 200, { ...HEADERS, "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" });
    response.end(error ? undefined : bytes);
  });
});

// -------------------------------------------------------------------------------------------------------------- browser

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"];
/** Instead of --disable-gpu: the graphics card, or one made of software. */
const CARD = ["--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-angle=vulkan", "--ignore-gpu-blocklist"];
const SOFTWARE = [...CARD, "--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader", "--enable-unsafe-swiftshader"];
let stop = () => {}; // ends the browser that runs

/**
 * Starts a browser with an empty profile on what `work` plans, and ends it when the page has sent its result. With
 * `again` the page is loaded twice. With `card`, flags, it may use a graphics card. Returns the results, each with the most
 * memory that its renderer had so far.
 */
async function browse(work, { again = false, card, limit = LIMIT } = {}) {
  plan = work;
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "pmp-bench-"));
  const results = [];
  let browser, timer;
  try {
    return await new Promise((resolve, reject) => {
      finish = (result) => {
        if (result.error) reject(new Error(result.error));
        results.push({ ...result, peak: peakMemory(browser.pid) });
        if (results.length < 1 + again) return true;
        resolve(results);
        return false;
      };
      timer = setTimeout(() => reject(new Error(`no result after ${limit / 60e3} minutes`)), limit);
      stop = reject;
      browser = spawn(options.chromium, [...(card ? [...FLAGS.filter((f) => f !== "--disable-gpu"), ...card] : FLAGS), `--user-data-dir=${profile}`, `http://127.0.0.1:${server.address().port}/bench.html`],
        { detached: true, stdio: "ignore" });
      browser.on("error", (e) => reject(new Error(`${options.chromium} did not start: ${e.message}`)));
      browser.on("exit", () => reject(new Error("the browser ended before there was a result")));
    });
  } finally {
    clearTimeout(timer);
    finish = () => false;
    try {
      process.kill(-browser.pid, "SIGKILL"); // the whole group
    } catch {
      // It has ended already.
    }
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

/** The most memory in bytes that a renderer of a browser has had, or null where the system does not tell. */
function peakMemory(group) {
  let most = null;
  try {
    for (const pid of fs.readdirSync("/proc").filter((n) => /^\d+$/.test(n))) {
      try {
        const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
        // Processes stay in the group of the browser that was started here.
        if (Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[2]) !== group) continue;
        if (!fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--type=renderer")) continue;
        const peak = /VmHWM:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"));
        if (peak) most = Math.max(most, 1024 * peak[1]);
      } catch {
        // A process may end while it is looked at.
      }
    }
  } catch {
    // No /proc.
  }
  return most;
}

// ---------------------------------------------------------------------------------------------------------------- sizes

/** Sum of brotli −11 sizes. Compressing some of these takes half a minute, so sizes are kept by content. */
function brotli(list) {
  const file = cached("brotli.json");
  const cache = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file)) : {};
  let sum = 0;
  for (const f of list) {
    const bytes = fs.readFileSync(f);
    const key = `${path.basename(f)} ${crypto.createHash("sha256").update(bytes).digest("hex").slice(0, 16)}`;
    cache[key] ??= zlib.brotliCompressSync(bytes, { params: {
      [zlib.constants.BROTLI_PARAM_QUALITY]: 11, [zlib.constants.BROTLI_PARAM_LGWIN]: 24, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    } }).length;
    sum += cache[key];
  }
  fs.writeFileSync(file, JSON.stringify(cache, null, 1));
  return sum;
}

/** What a first visitor gets: code as hosts compress it, weights as they are. Ours include the text encoder. */
function bytes({ engine, threads }, device) {
  const [kind, precision] = engine.split("-");
  const end = suffix(precision);
  const list = (folder, test) => fs.readdirSync(folder).filter(test).map((f) => path.join(folder, f));
  const lite = `litert_wasm_${threads > 1 ? "threaded_" : ""}internal`;
  const { code, weights } = {
    pmp: () => ({ code: list(options.package, (f) => /\.js$|^engine\.wasm$/.test(f)), weights: list(path.join(options.package, "weights"), () => true) }),
    onnxruntime: () => ({
      code: (device === "webgpu" ? ["ort-wasm-simd-threaded.asyncify.wasm", "ort-wasm-simd-threaded.asyncify.mjs", "ort.webgpu.min.mjs"]
        : ["ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs", "ort.wasm.min.mjs"]).map((f) => path.join(folders["/ort/"], f)),
      weights: [cached(`encode${end}.onnx`), cached(`segment${end}.onnx`)],
    }),
    litert: () => ({
      code: [`core/wasm/${lite}.wasm`, `core/wasm/${lite}.js`, "core/dist/index.js", "wasm-utils/dist/index.js"].map((f) => path.join(folders["/lite/"], f)),
      weights: [cached(`encode${end}.tflite`), cached("segment.tflite")],
    }),
  }[kind]();
  const code_bytes = brotli(code), weights_bytes = weights.reduce((sum, f) => sum + fs.statSync(f).size, 0);
  return { bytes: code_bytes + weights_bytes, code_bytes, weights_bytes };
}

// -------------------------------------------------------------------------------------------------------------- results

const round = (x) => Math.round(x * 1000) / 1000;

/** name, name_min and name_max of a list of numbers. */
function spread(name, list) {
  const sorted = list.filter((x) => x !== undefined).sort((a, b) => a - b), n = sorted.length;
  if (!n) return {};
  return { [name]: round((sorted[(n - 1) >> 1] + sorted[n >> 1]) / 2), [`${name}_min`]: round(sorted[0]), [`${name}_max`]: round(sorted[n - 1]) };
}

/** What is told of a row. `sizes` are what a first visitor gets. */
function run(row, loads, blank, sizes = bytes(row)) {
  const of = (name, f) => spread(name, row.times.map(f));
  const peaks = loads.map(([first]) => first.peak).filter((x) => x !== null);
  const { masks, scores, differing, prompts } = row.agreement;
  const sum = (i) => masks.reduce((s, m) => s + m[i], 0), ious = masks.map(([both, either]) => (either ? both / either : 1));
  return {
    engine: row.engine, device: row.device, threads: row.threads,
    ...of("encode_ms", (t) => t.encode), ...of("segment_ms", (t) => t.segment), ...of("words_ms", (t) => t.words),
    ...of("total_ms", (t) => t.encode + t.segment),
    ...of("whole_ms", (t) => t.whole), ...of("encode_copied_ms", (t) => t.encode_copied), ...of("segment_copied_ms", (t) => t.segment_copied),
    ...of("encode_bytes_ms", (t) => t.encode_bytes), ...of("total_bytes_ms", (t) => t.encode_bytes && t.encode_bytes + t.segment),
    ...of("begin_ms", (t) => t.begin), ...of("write_ms", (t) => t.write), ...of("masks_ms", (t) => t.masks),
    ...(loads.length && {
      heap_mib: round(Math.max(...loads.map(([first]) => first.heap)) / MIB),
      ...(peaks.length && blank !== null && { renderer_mib: round((Math.min(...peaks) - blank) / MIB) }),
      ...spread("load_ms", loads.map(([first]) => first.load)), ...spread("load_cached_ms", loads.map(([, second]) => second.load)),
      ...spread("first_encode_ms", loads.map(([first]) => first.first.encode)), ...spread("first_segment_ms", loads.map(([first]) => first.first.segment)),
    }),
    ...sizes,
    // Over all pixels of all masks; a small mask that flips says little.
    ...(ious.length && { iou: round(sum(0) / sum(1)), iou_mean: round(ious.reduce((x, y) => x + y) / ious.length), iou_min: round(Math.min(...ious)) }),
    masks_compared: ious.length,
    score_difference: round(scores), found_differently: differing, prompts,
  };
}

function machine(load, pictures) {
  const version = (file) => JSON.parse(fs.readFileSync(path.join(here, "node_modules", file, "package.json"))).version;
  const hash = (file) => crypto.createHash("sha256").update(fs.readFileSync(file)).digest("hex").slice(0, 8);
  return {
    cpu: os.cpus()[0].model, cores, system: `${os.type()} ${os.release().split(/[-+]/)[0]} ${os.arch()}`,
    // The page is told no more than the first number of the version.
    browser: execFileSync(options.chromium, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim().split(" built")[0],
    date: new Date().toISOString(), load_average: load.map(round),
    onnxruntime: version("onnxruntime-web"), litert: version("@litertjs/core"),
    weights: hash(path.join(options.package, "weights", "manifest.json")), engine: hash(path.join(options.package, "engine.wasm")),
    rounds: Number(options.rounds), warm_up: WARM, side: 512, prompts: 20, pictures,
  };
}

// ------------------------------------------------------------------------------------------------------------------ run

async function main() {
  const before = os.loadavg()[0];
  const wanted = rows(), onCard = options.ops ? [] : cardRows(), pictures = fs.readdirSync(options.pictures).filter((f) => f.endsWith(".jpg"));
  if (!wanted.length && !onCard.length) throw new Error(`no row fits "${options.only}"`);
  const shared = { picture: PICTURE, pictures };
  const precisions = [...new Set(wanted.map((r) => r.engine).filter((e) => e.startsWith("pmp-")).map((e) => e.slice(4)))];
  if (options.ops) {
    const [ops] = await browse({ ...shared, mode: "ops", precisions, repeats: Number(options.rounds) });
    for (const { precision, error } of ops.failed) say(`${precision} is left out: ${error}`);
    console.log(options.json ? JSON.stringify(opsSummary(ops)) : opsTable(ops, 30));
    return;
  }

  const { rounds, ...told } = { machine: null, runs: [], rounds: [], ...(wanted.length && (await onProcessor(wanted, shared, precisions))) };
  told.machine = machine([before, os.loadavg()[0]], pictures.length);
  if (onCard.length) {
    try {
      const found = await onGraphicsCard(onCard, shared);
      if (found) told.card = found;
    } catch (e) {
      say(`the rows on the graphics card are left out: ${e.message.split("\n")[0]}`);
    }
  }
  if (!told.runs.length && !told.card) throw new Error("no row could run");
  fs.mkdirSync(path.join(here, "results"), { recursive: true });
  fs.writeFileSync(path.join(here, "results", "latest.json"), JSON.stringify({ ...told, rounds }, null, 1));
  if (options.write) {
    // What software takes is no result.
    const lasting = told.card?.software ? { ...told, card: undefined } : told;
    if (lasting.runs.length || lasting.card) fs.writeFileSync(path.join(here, "results.md"), markdown(lasting));
    else say("results.md stays as it is: a graphics card of software says nothing about speed");
  }
  console.log(options.json ? JSON.stringify({ ...told, ...(told.ops && { ops: opsSummary(told.ops) }) }) : markdown(told));
}

/** Loads each row's engine in browsers of their own, as often as is wanted. Returns what was found of the rows that can. */
async function load(rows, shared, card) {
  const loads = new Map(rows.map((row) => [row, []])), blanks = [];
  for (let i = 0; i < Number(options.loads); i++) {
    say(`loading each engine in a browser of its own, ${i + 1} of ${options.loads}`);
    blanks.push((await browse({ ...shared, mode: "blank" }, { card }))[0].peak);
    for (const [row, found] of loads) {
      try {
        found.push(await browse({ ...shared, mode: "one", row }, { again: true, card }));
      } catch (e) {
        loads.delete(row);
        leftOut(row, e.message);
      }
    }
  }
  return { loads, blank: blanks.every((b) => b !== null) && blanks.length ? Math.min(...blanks) : null };
}

/** Times the rows on the processor, and our ops. */
async function onProcessor(wanted, shared, precisions) {
  const { loads, blank } = await load(wanted, shared);
  const able = [...loads.keys()];
  say("timing all engines in turns");
  const [timed] = await browse({ ...shared, mode: "times", rows: able, rounds: Number(options.rounds), warm: WARM });
  for (const row of timed.failed) leftOut(row, row.error);
  say("timing our engine op by op");
  const [ops] = await browse({ ...shared, mode: "ops", precisions, repeats: Number(options.rounds) });
  for (const { precision, error } of ops.failed) say(`the ops in ${precision} are left out: ${error}`);
  const runs = timed.rows.map((row) => run(row, loads.get(able.find((r) => r.engine === row.engine && r.threads === row.threads)), blank));
  return { runs, ops, rounds: timed.rows };
}

/** Which graphics card the browser has with these flags, or null. */
async function adapterOf(shared, card) {
  try {
    return (await browse({ ...shared, mode: "adapter" }, { card, limit: 60e3 }))[0].adapter;
  } catch (e) {
    say(`the browser for the graphics card: ${e.message.split("\n")[0]}`);
    return null;
  }
}

/** Times the rows on the graphics card, if there is one. */
async function onGraphicsCard(wanted, shared) {
  let card = CARD, adapter = await adapterOf(shared, card);
  if (options.software && (!adapter || adapter.software)) adapter = await adapterOf(shared, (card = SOFTWARE));
  if (!adapter || (adapter.software && !options.software)) {
    say(`the rows on the graphics card are left out: ${adapter ? "it is made of software; --software runs them all the same, for correctness only" : "the browser has none for WebGPU"}`);
    return null;
  }
  const { software } = adapter;
  const able = wanted.filter(({ engine }) => !engine.startsWith("onnxruntime") || fs.existsSync(cached("encode.onnx")));
  // Software takes a minute for what a card does in milliseconds.
  const { loads, blank } = software ? { loads: new Map(able.map((row) => [row, []])), blank: null } : await load(able, shared, card);
  const rounds = software ? 1 : Number(options.rounds), warm_up = software ? 0 : WARM;
  const pictures = software ? [PICTURE] : shared.pictures;
  say(software ? "running the engines on a graphics card made of software: correctness only" : "timing the engines on the graphics card in turns");
  const [timed] = await browse({ ...shared, pictures, mode: "card", rows: [...loads.keys()], rounds, warm: warm_up, software }, { card });
  const runs = [];
  for (const [i, [row, found]] of [...loads].entries()) {
    const measured = timed.rows[i];
    if (measured.error) {
      leftOut(row, measured.error);
      continue;
    }
    const { work } = measured.times.at(-1), ms = (step) => measured.times.map((t) => t.work?.[step]?.card).filter((x) => x !== undefined);
    // Both precisions have the same products.
    const flops = JSON.parse(fs.readFileSync(cached(`ops-${row.engine.split("-")[1]}.json`))).encode.reduce((sum, op) => sum + op.flops, 0);
    const told = run(measured, found, blank, software ? {} : bytes(row, row.device));
    runs.push({ ...told, features: measured.features, work, ...spread("encode_card_ms", ms("encode")), ...spread("segment_card_ms", ms("segment")),
      gflops: round(flops / told.encode_ms / 1e6) });
  }
  return runs.length ? { adapter, software, rounds, warm_up, pictures: pictures.length, runs } : null;
}

await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => stop(new Error("interrupted")));
try {
  await main();
} catch (e) {
  say(e.message);
  process.exitCode = 1;
} finally {
  server.close();
  server.closeAllConnections();
}
