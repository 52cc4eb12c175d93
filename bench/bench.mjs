// Times our engine against onnxruntime-web in one Chromium and prints a table; started by run.sh.
//
//   node bench.mjs --package DIR --onnx DIR --picture FILE --chromium PROGRAM [--rounds 15] [--write]
//
// A small server gives out both engines, the page (bench.html) posts what it measured, and the browser is ended.
// The page is not cross-origin isolated, so neither side can have threads.
import { execFileSync, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import zlib from "node:zlib";
import { parseArgs } from "node:util";

const here = import.meta.dirname;
const { values: options } = parseArgs({ options: {
  package: { type: "string" }, onnx: { type: "string" }, picture: { type: "string" }, chromium: { type: "string" },
  rounds: { type: "string", default: "15" }, write: { type: "boolean" },
} });
const LIMIT = 15 * 60e3; // ms until the browser is given up
const folders = {
  "/pmp/": options.package, "/onnx/": options.onnx, "/ort/": path.join(here, "node_modules/onnxruntime-web/dist"),
};
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

let browser, profile, finish;
const result = new Promise((resolve) => (finish = resolve));

const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  if (request.method === "POST") {
    let body = "";
    for await (const part of request) body += part;
    response.end();
    if (pathname === "/progress") console.error(`bench: ${body}`);
    if (pathname === "/result") finish(JSON.parse(body));
    return;
  }
  if (pathname === "/cpu") return response.end(JSON.stringify(cpuTime()));
  const folder = Object.keys(folders).find((f) => pathname.startsWith(f));
  const file = folder ? path.join(folders[folder], pathname.slice(folder.length))
    : pathname === "/picture" ? options.picture
    : ["/bench.html", "/worker.js"].includes(pathname) ? path.join(here, pathname) : "";
  fs.readFile(file, (error, bytes) => {
    response.writeHead(error ? 404 : 200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream", "cache-control": "no-store" });
    response.end(error ? undefined : bytes);
  });
});

// ----------------------------------------------------------------------------------------------------- processor time

let workers = null; // the schedstat files of the page's worker threads

/** Milliseconds on a processor of the page's worker, or null where the system does not tell. */
function cpuTime() {
  try {
    workers ??= findWorkers();
    return workers.length ? workers.reduce((sum, f) => sum + Number(fs.readFileSync(f, "utf8").split(" ")[0]), 0) / 1e6 : null;
  } catch {
    return null;
  }
}

function findWorkers() {
  const found = [];
  for (const pid of fs.readdirSync("/proc").filter((n) => /^\d+$/.test(n))) {
    try {
      const command = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8");
      if (!command.includes("--type=renderer") || !ours(pid)) continue;
      for (const tid of fs.readdirSync(`/proc/${pid}/task`)) {
        const task = `/proc/${pid}/task/${tid}`;
        if (fs.readFileSync(`${task}/comm`, "utf8").startsWith("DedicatedWorker")) found.push(`${task}/schedstat`);
      }
    } catch {
      // A process may end while it is looked at.
    }
  }
  return found;
}

/** Whether a process comes from the browser that was started here: processes stay in its group. */
function ours(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[2]) === browser.pid;
}

// ------------------------------------------------------------------------------------------------------------- sizes

/** Sum of brotli -11 sizes. Compressing onnxruntime takes half a minute, so sizes are kept by content. */
function brotli(files) {
  const cacheFile = path.join(here, ".cache", "brotli.json");
  const cache = fs.existsSync(cacheFile) ? JSON.parse(fs.readFileSync(cacheFile)) : {};
  let sum = 0;
  for (const file of files) {
    const bytes = fs.readFileSync(file);
    const key = `${path.basename(file)} ${crypto.createHash("sha256").update(bytes).digest("hex").slice(0, 16)}`;
    cache[key] ??= zlib.brotliCompressSync(bytes, { params: {
      [zlib.constants.BROTLI_PARAM_QUALITY]: 11, [zlib.constants.BROTLI_PARAM_LGWIN]: 24, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    } }).length;
    sum += cache[key];
  }
  fs.mkdirSync(path.dirname(cacheFile), { recursive: true });
  fs.writeFileSync(cacheFile, JSON.stringify(cache, null, 1));
  return sum;
}

function sizes() {
  const engine = fs.readdirSync(options.package).filter((f) => /\.(js|wasm)$/.test(f)).map((f) => path.join(options.package, f));
  const weights = fs.readdirSync(path.join(options.package, "weights")).map((f) => path.join(options.package, "weights", f));
  const ort = ["ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs", "ort.wasm.min.mjs"].map((f) => path.join(folders["/ort/"], f));
  const onnx = fs.readdirSync(options.onnx).filter((f) => ["encode.onnx", "segment-8.onnx"].includes(f)).map((f) => path.join(options.onnx, f));
  const raw = (files) => files.reduce((sum, f) => sum + fs.statSync(f).size, 0);
  return {
    engine: { ours: brotli(engine), theirs: brotli(ort) },
    weights: { ours: raw(weights), theirs: raw(onnx) }, // int8 with the text encoder; float32 without
  };
}

// ------------------------------------------------------------------------------------------------------------- report

function summary(times, key, floor = 0) {
  const sorted = times.map((t) => t[key] - floor).sort((a, b) => a - b);
  const n = sorted.length, middle = (sorted[(n - 1) >> 1] + sorted[n >> 1]) / 2;
  return { min: sorted[0], median: middle, max: sorted[n - 1], n };
}

const ms = (x) => x.toFixed(x < 100 ? 1 : 0);
const row = (...cells) => `| ${cells.join(" | ")} |`;

function report(r, size, inputs) {
  const version = JSON.parse(fs.readFileSync(path.join(folders["/ort/"], "../package.json"))).version;
  // The page is told no more than the first number of the version.
  const chrome = execFileSync(options.chromium, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim().split(" built")[0];
  const lines = [];
  const cpus = os.cpus();
  lines.push(`${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC; ${chrome} (headless), page not isolated; `
    + `${cpus.length} × ${cpus[0].model}; load average ${r.load.map((x) => x.toFixed(1)).join(" before, ")} after; `
    + `onnxruntime-web ${version}, wasm, f32, 1 thread; ours: device "${r.device}", 1 thread; ${r.rounds} rounds in turns after ${r.warm} to warm up; `
    + `weights ${crypto.createHash("sha256").update(fs.readFileSync(path.join(options.package, "weights", "manifest.json"))).digest("hex").slice(0, 8)}.`, "");
  const clock = (s) => s ? `${ms(s.median)} [${ms(s.min)}..${ms(s.max)}]` : "";
  const cpu = (s) => s ? `${ms(s.median)} / ${ms(s.min)}` : "";
  const all = {};
  for (const [name, sides] of Object.entries(r.steps)) {
    all[name] = {};
    for (const [who, times] of Object.entries(sides)) {
      all[name][who] = { ms: summary(times, "ms") };
      // On the books of the system there is a little for asking it.
      if (times.every((t) => t.cpu !== null)) all[name][who].cpu = summary(times, "cpu", r.cpuFloor);
    }
  }
  const t = inputs.counts[0];
  // Rounds pair what ran in the same minute, so a total is made round by round.
  const total = (who, key, floor) => r.steps.encode[who].every((x) => x[key] !== null)
    ? summary(r.steps.encode[who].map((x, i) => ({ [key]: x[key] - floor + r.steps[`segment ${t}`][who][i][key] - floor })), key) : undefined;
  all.total = Object.fromEntries(["ours", "theirs"].map((who) => [who, { ms: total(who, "ms", 0), cpu: total(who, "cpu", r.cpuFloor) }]));
  const names = { total: `encode + segment, ${t} phrases`, picture: `new picture, from RGBA bytes to maps, ${t} phrases`,
    "both in one graph": "(theirs as one graph, without copies between)" };
  const label = (name) => names[name] ?? name.replace(/^segment (\d+)/, "segment, $1 phrases");
  const ratio = (a, key, part) => a.ours?.[key] && a.theirs?.[key] ? (a.ours[key][part] / a.theirs[key][part]).toFixed(2) : "";
  lines.push(row("ms", "ours: median [min..max]", "onnxruntime-web", "ratio of medians", "of minima", "CPU ours: median / min", "CPU theirs", "ratio of CPU medians"));
  lines.push(row(...Array(8).fill("---")));
  for (const name of ["encode", ...inputs.counts.map((n) => `segment ${n}`), "total", "picture", "both in one graph"]) {
    const a = all[name];
    if (!a) continue;
    lines.push(row(label(name), clock(a.ours?.ms), clock(a.theirs?.ms),
      ratio(a, "ms", "median"), ratio(a, "ms", "min"), cpu(a.ours?.cpu), cpu(a.theirs?.cpu), ratio(a, "cpu", "median")));
  }
  lines.push("", "A ratio below 1 means that ours is faster. CPU is the time for which the worker's thread had a processor, as the system "
    + "counts it: other programs slow it only by what they take of caches and memory. Steps are timed from inputs in place to results in place; "
    + "of theirs, copying what a step takes and returns is a part. Our encode begins with RGBA bytes, theirs with planes of float32; the row for "
    + "a new picture has for them the making of the planes, and for us the making of the picture's program and its memory.", "");
  lines.push(row("first run, ms", "ours", "onnxruntime-web"), row("---", "---", "---"));
  for (const name of ["load", "encode", ...inputs.counts.map((n) => `segment ${n}`)]) {
    lines.push(row(name === "load" ? "load from the same machine, prepare" : label(name), ...[r.first.ours, r.first.theirs].map((f) => ms(f[name]))));
  }
  lines.push("", "Our first segment also embeds the phrases; onnxruntime-web is given embeddings.", "");
  const mb = (n) => `${(n / 1e6).toFixed(2)} MB`;
  lines.push(row("size", "ours", "onnxruntime-web"), row("---", "---", "---"));
  lines.push(row("engine and JavaScript, brotli −11", mb(size.engine.ours), mb(size.engine.theirs)));
  lines.push(row("weights as served (ours: int8, with text encoder and vocabulary; theirs: f32, without)", mb(size.weights.ours), mb(size.weights.theirs)));
  lines.push(row("WebAssembly memory after all this (ours: two pictures at once; theirs: four graphs)", `${mb(r.memory.ours.kernels)} and ${mb(r.memory.ours.engine)} of Go's`, mb(r.memory.theirs.wasm)), "");
  for (const a of r.agreement) {
    lines.push(`${a.phrases} phrases: scores differ by at most ${a.scoreDifference.toExponential(1)}; ${a.present} present; `
      + (a.compared ? `${a.compared} masks at 6 thresholds: worst IoU ${a.worstIoU.toFixed(5)}, ${a.differing} of ${a.pixels} pixels differ.` : "no masks to compare."));
  }
  return { text: lines.join("\n") + "\n", summary: all };
}

// ---------------------------------------------------------------------------------------------------------------- run

function stop() {
  if (browser) {
    try {
      process.kill(-browser.pid, "SIGKILL"); // the whole group
    } catch {
      // It has ended already.
    }
  }
  if (profile) fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  server.close();
  server.closeAllConnections();
}

await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
profile = fs.mkdtempSync(path.join(os.tmpdir(), "pmp-bench-"));
const address = `http://127.0.0.1:${server.address().port}/bench.html?rounds=${options.rounds}`;
const before = os.loadavg()[0];
browser = spawn(options.chromium, ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
  `--user-data-dir=${profile}`, address], { detached: true, stdio: "ignore" });
browser.on("error", (e) => finish({ error: `${options.chromium} did not start: ${e.message}` }));
browser.on("exit", () => finish({ error: "the browser ended before there was a result" }));
const timer = setTimeout(() => finish({ error: `no result after ${LIMIT / 60e3} minutes` }), LIMIT);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => finish({ error: "interrupted" }));
const measured = await result;
clearTimeout(timer);
stop();
if (!measured.steps) {
  console.error(`bench: ${measured.error ?? "the page sent something else than results"}`);
  process.exit(1);
}
measured.load = [before, os.loadavg()[0]];
const inputs = JSON.parse(fs.readFileSync(path.join(options.onnx, "inputs.json")));
const size = sizes();
const { text, summary: table } = report(measured, size, inputs);
console.log(text);
fs.mkdirSync(path.join(here, "results"), { recursive: true });
fs.writeFileSync(path.join(here, "results", "latest.json"), JSON.stringify({ ...measured, table, size }, null, 1));
if (options.write) {
  fs.writeFileSync(path.join(here, "results.md"), `# Speed beside onnxruntime-web

The same network with the same weights on the same picture, 512×512, in one run of one browser, in turns: \`./build.sh bench\`.
Times depend on the machine and on what else it does; the ratio is the figure to look at.

${text}`);
}
