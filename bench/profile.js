// A worker that runs our engine op by op and times each, and then the bare loops of the same matrix products.
//
// The shipped package's worker is loaded here as it is, and told to load as a page would tell it. The kernels' module runs
// a list of op records by its export `run`: here that export is wrapped, so that each record is run by itself. What the
// records are comes from the engine's own program, see ops/main.go. Times are the shortest of several.
import { time, working } from "./ceiling.js";

const answer = self.postMessage.bind(self); // the package's worker gets the name
const clock = () => performance.now();

self.onmessage = async ({ data }) => {
  try {
    answer({ value: await (data.precision ? profile(data) : ceiling(data)) });
  } catch (e) {
    answer({ error: String(e?.stack ?? e) });
  }
};

let times = null; // the shortest time of each op of a list, while a list is measured
let recordSize;
// A proxy, so that Go's own instance still is an instance of it.
WebAssembly.Instance = new Proxy(WebAssembly.Instance, { construct(target, args) {
  const instance = new target(...args);
  const { run, memory, ...others } = instance.exports;
  if (!run || !memory) return instance;
  const wrapped = (records, count) => {
    if (!times) return run(records, count);
    if (times.length && times.length !== count) throw new Error(`a list of ${count} ops, not ${times.length}`);
    for (let i = 0; i < count; i++) {
      const start = clock();
      run(records + i * recordSize, 1);
      times[i] = Math.min(times[i] ?? Infinity, clock() - start);
    }
  };
  return { exports: { ...others, memory, run: wrapped } };
} });

async function profile({ precision, phrases, side, repeats }) {
  const ops = await (await fetch(`/cache/ops-${precision}.json`)).json();
  recordSize = ops.recordSize;
  self.postMessage = () => {}; // the package's worker says that it is there
  await import("/pmp/worker.js");
  const packageWorker = self.onmessage;
  const loaded = await new Promise((resolve, reject) => {
    self.postMessage = ({ id, progress, error, loaded }) => {
      if (id === 1 && !progress) error ? reject(new Error(error.message)) : resolve(loaded);
    };
    const weights = new URL("/pmp/weights/manifest.json", self.location.href).href;
    packageWorker({ data: { id: 1, call: "load", args: { weights: { url: weights }, device: "auto", cache: false, precision, threads: 1 } } });
  });
  const call = async (name, ...args) => {
    const out = await new Promise((resolve) => self.pmpHost[name](resolve, ...args));
    if (out?.error) throw new Error(`${name}: ${out.error.message}`);
    return out;
  };
  const picture = await call("begin", side, side);
  // The numbers in a picture do not change its time, but a flat one could.
  const pixels = Uint8Array.from({ length: 4 * side * side }, (_, i) => Math.imul(i, 2654435761) >>> 24);
  const steps = {
    async encode() {
      await call("pixels", picture.id, pixels);
      const start = clock();
      await call("encode", picture.id);
      return clock() - start;
    },
    async segment() {
      const start = clock();
      await call("segment", picture.id, phrases, undefined, true);
      return clock() - start;
    },
  };
  const found = {};
  for (const [name, f] of Object.entries(steps)) {
    for (let i = 0; i < 5; i++) await f();
    let whole = Infinity;
    for (let i = 0; i < repeats; i++) whole = Math.min(whole, await f());
    times = [];
    for (let i = 0; i < repeats; i++) await f();
    const list = ops[name];
    if (list.length !== times.length) throw new Error(`${name} has ${times.length} ops, the program ${list.length}: build the engine again`);
    found[name] = { whole, ops: list.map((op, i) => ({ ...op, ms: times[i] })) };
    times = null;
  }
  return { device: loaded.device, ...found };
}

/** The bare loops' shortest times of all shapes, and the rate of one whose numbers all lie in the first cache. */
function ceiling({ shapes }) {
  const kinds = working(), small = [48, 8, 512];
  const all = [small, ...shapes].map((shape) => ({ shape, ms: {} }));
  // Twice, some time apart, since a machine that is busy stays so for a while.
  for (let pass = 0; pass < 2; pass++) {
    for (const { shape, ms } of all) for (const kind of kinds) ms[kind] = Math.min(ms[kind] ?? Infinity, time(kind, ...shape));
  }
  const flops = 2 * small.reduce((a, b) => a * b);
  return { rate: Object.fromEntries(kinds.map((kind) => [kind, flops / all[0].ms[kind] / 1e6])), shapes: all.slice(1) };
}
