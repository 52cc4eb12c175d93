// Where our engine spends its time, op by op, in Node.
//
//   node [--experimental-wasm-relaxed-simd] profile.mjs [PACKAGE] [repeats]
//
// PACKAGE is a folder with engine.wasm and weights/, by default ../dist/site/pmp. The flag is for Node 20 and 21, which
// have the instructions that Chromium uses only behind it.
//
// The kernels' module runs a list of op records by its export `run`. Here that export is wrapped: each record is run by
// itself and timed. Times are processor time, and the shortest of several, since machines are rarely quiet.
import fs from "node:fs";
import path from "node:path";

const folder = path.resolve(process.argv[2] ?? path.join(import.meta.dirname, "../dist/site/pmp"));
const repeats = Number(process.argv[3] ?? 15);
const SIDE = 512;
// As in kernel.Kind and kernel.RecordSize; the names of the integers that say most about an op of the kind.
const KINDS = ["", "matmul", "conv", "depthwise", "upsample-add", "layer-norm", "l2-norm", "l1-norm", "add", "add-position",
  "attention", "pack", "activate", "classify", "picture", "paint"];
const RECORD = 128, INTS = 10;
const describe = {
  matmul: ([m, n, k, , ldb]) => ({ name: `${m}×${k}→${n}${ldb ? " (rows)" : ""}`, flops: 2 * m * n * k }),
  conv: ([h, w, n, size, , c]) => ({ name: `${h}×${w}×${n}, ${size}×${size}`, flops: 2 * h * w * n * size * size * c }),
  depthwise: ([h, w, , , c, size, stride]) => ({ name: `${h}×${w}×${c}, ${size}×${size} s${stride}`, flops: 2 * h * w * c * size * size }),
  attention: ([q, k, d]) => ({ name: `${q} queries, ${k} keys`, flops: 4 * q * k * d }),
  pack: ([k, n, , t]) => ({ name: `${k}×${n}${t ? " transposed" : ""}`, flops: 0 }),
};

await import(path.join(folder, "wasm_exec.js"));
const clock = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
};
let times = null; // record address → {kind, name, flops, ms}; null while nothing is measured
// A proxy, so that Go's own instance still is an instance of it.
WebAssembly.Instance = new Proxy(WebAssembly.Instance, { construct(target, args) {
  const instance = new target(...args);
  const { run, memory, ...others } = instance.exports;
  if (!run) return instance;
  const wrapped = (records, count) => {
    if (!times) return run(records, count);
    for (let i = 0; i < count; i++) {
      const at = records + i * RECORD;
      const start = clock();
      run(at, 1);
      const ms = clock() - start;
      const words = new Int32Array(memory.buffer, at, RECORD / 4);
      const kind = KINDS[words[0]] ?? `kind ${words[0]}`;
      const entry = times.get(at) ?? { kind, flops: 0, name: "", ms: Infinity, ...describe[kind]?.(words.subarray(INTS)) };
      entry.ms = Math.min(entry.ms, ms);
      times.set(at, entry);
    }
  };
  return { exports: { ...others, memory, run: wrapped } };
} });

const go = new Go();
const { instance } = await WebAssembly.instantiate(fs.readFileSync(path.join(folder, "engine.wasm")), go.importObject);
const host = (globalThis.pmpHost = {});
go.run(instance);
const call = (name, ...args) => {
  const out = host[name](...args);
  if (out?.error) throw new Error(`${name}: ${out.error.message}`);
  return out;
};
const file = (name) => new Uint8Array(fs.readFileSync(path.join(folder, "weights", name)));
for (const { name } of call("open", file("manifest.json"))) call("add", name, file(name));
const { device } = call("load", "auto");
const picture = call("begin", SIDE, SIDE);
// The numbers in a picture do not change its time, but a flat one could.
const pixels = Uint8Array.from({ length: 4 * SIDE * SIDE }, (_, i) => (Math.imul(i, 2654435761) >>> 24));
const prompts = ["person", "flag", "helmet", "dog", "car", "tree", "sky", "chair"];
const step = {
  encode() {
    call("pixels", picture.id, pixels);
    call("encode", picture.id);
  },
  segment: () => call("segment", picture.id, prompts, undefined),
};
console.log(`device ${device}; shortest of ${repeats} runs of each op`);
for (const [name, f] of Object.entries(step)) {
  for (let i = 0; i < 5; i++) f();
  let whole = Infinity;
  for (let i = 0; i < repeats; i++) {
    const start = clock();
    f();
    whole = Math.min(whole, clock() - start);
  }
  times = new Map();
  for (let i = 0; i < repeats; i++) f();
  const ops = [...times.values()];
  times = null;
  const sum = (list, key) => list.reduce((s, o) => s + o[key], 0);
  const rate = (flops, ms) => flops ? `${(flops / ms / 1e6).toFixed(1)} GFLOP/s` : "";
  console.log(`\n${name}: ${whole.toFixed(1)} ms whole, ${sum(ops, "ms").toFixed(1)} ms as the sum of ${ops.length} ops`);
  const by = (key) => {
    const groups = new Map();
    for (const o of ops) groups.set(key(o), [...(groups.get(key(o)) ?? []), o]);
    return [...groups].map(([k, list]) => ({ k, n: list.length, ms: sum(list, "ms"), flops: sum(list, "flops") })).sort((a, b) => b.ms - a.ms);
  };
  const line = ({ k, n, ms, flops }) => console.log(`  ${ms.toFixed(2).padStart(8)} ms  ×${String(n).padEnd(3)} ${k.padEnd(44)} ${rate(flops, ms)}`);
  by((o) => o.kind).forEach(line);
  console.log("  of which");
  by((o) => `${o.kind} ${o.name}`).slice(0, 25).forEach(line);
}
process.exit();
