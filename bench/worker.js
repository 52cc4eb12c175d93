// Both engines in one worker, so that they run on the same thread with the same pixels, in turns:
// ours, theirs, ours, theirs, … A slow minute of the machine then hits both.
//
// Our side is the shipped package: its worker script is loaded here as it is, and told to load engine and weights as a
// page would tell it. After that the calls that Go exports (wasm/calls.go) are made and timed directly, since the package's
// own messages also carry finished masks.

/** Kept before the package's worker is imported, which replaces onmessage and answers by postMessage. */
const answer = self.postMessage.bind(self);
const clock = () => performance.now();

self.onmessage = async ({ data }) => {
  try {
    answer(await bench(data));
  } catch (e) {
    answer({ error: String(e?.stack ?? e) });
  }
};

/**
 * Milliseconds that this thread has run on a processor, told by the server, which reads the kernel's books; null where
 * there are none. Unlike time on the clock it does not count when another program had the processor.
 */
function cpu() {
  const request = new XMLHttpRequest();
  request.open("GET", "/cpu", false);
  request.send();
  return JSON.parse(request.responseText);
}

const progress = (text) => fetch("/progress", { method: "POST", body: text });

async function bench({ pixels, side, options }) {
  const rounds = Number(options.rounds ?? 15), warm = Number(options.warm ?? 4);
  const inputs = await (await fetch("/onnx/inputs.json")).json();
  const ours = await loadOurs(pixels, side, inputs);
  await progress("our engine is loaded");
  const theirs = await loadTheirs(pixels, side, inputs);
  await progress("onnxruntime-web is loaded");

  const steps = {}; // name → {ours: [{ms, cpu}], theirs: […]}
  const sides = { ours, theirs };
  const names = ["encode", ...inputs.counts.map((t) => `segment ${t}`), "picture"];
  const first = { ours: ours.load, theirs: theirs.load };
  for (let round = -warm; round < rounds; round++) {
    // Who goes first changes, so that neither always finds the other's caches.
    const order = round & 1 ? ["theirs", "ours"] : ["ours", "theirs"];
    for (const name of names) {
      for (const who of order) {
        const times = await sides[who].run(name);
        if (round === -warm) first[who][name] ??= times.ms;
        if (round < 0) continue;
        ((steps[name] ??= {})[who] ??= []).push(times);
      }
    }
    const both = await theirs.run("both");
    if (round >= 0) (steps["both in one graph"] ??= { theirs: [] }).theirs.push(both);
    if ((round + warm) % 5 === 4) await progress(`${round + warm + 1} of ${rounds + warm} rounds`);
  }
  // What a pair of calls of /cpu costs by itself, to be taken off.
  const empty = [];
  for (let i = 0; i < 20; i++) {
    const before = cpu();
    empty.push(cpu() - before);
  }
  empty.sort((a, b) => a - b);
  return {
    rounds, warm, steps, first, cpuFloor: empty[10],
    agreement: await agreement(ours, theirs, inputs, side),
    memory: { ours: await ours.memory(), theirs: theirs.memory() },
    device: ours.device,
  };
}

/** Runs f, which returns a promise only if it must, and says how long that took. */
async function timed(f) {
  const before = cpu(), start = clock();
  const out = f();
  const value = out instanceof Promise ? await out : out;
  const ms = clock() - start;
  return { ms, cpu: before === null ? null : cpu() - before, value };
}

// ---------------------------------------------------------------------------------------------------------------- ours

async function loadOurs(pixels, side, inputs) {
  const load = {};
  let start = clock();
  self.postMessage = () => {}; // the package's worker says that it is there
  await import("/pmp/worker.js");
  const packageWorker = self.onmessage;
  const send = (call, args) => new Promise((resolve, reject) => {
    self.postMessage = ({ progress: p, value, error, memory }) => {
      if (p) return;
      if (error) reject(new Error(`our engine: ${error.message}`));
      else resolve({ ...value, memory });
    };
    packageWorker({ data: { id: 1, call, args } });
  });
  const loaded = await send("load", { weights: new URL("/pmp/weights/manifest.json", self.location.href).href, device: "auto", cache: false });
  load.load = clock() - start;
  const go = (name, ...args) => {
    const out = self.pmpHost[name](...args);
    if (out?.error) throw new Error(`our engine, ${name}: ${out.error.message}`);
    return out;
  };
  const segment = (id, prompts, threshold) => go("segment", id, prompts, threshold);
  const bytes = new Uint8Array(pixels.buffer);
  /** Goes through Go, a copy more than what the package does, which writes to the kernels' memory. */
  const write = (id) => go("pixels", id, bytes);
  const open = () => {
    const { id } = go("begin", side, side);
    write(id);
    return id;
  };
  // Phrases are embedded when they are first met, and kept. That belongs to the first runs and not to the steps.
  const kept = open();
  start = clock();
  go("encode", kept);
  load.encode = clock() - start;
  for (const t of inputs.counts) {
    start = clock();
    segment(kept, inputs.phrases.slice(0, t));
    load[`segment ${t}`] = clock() - start;
  }
  return {
    load, device: loaded.device,
    run(name) {
      if (name === "encode") {
        write(kept); // encoding takes the room of the pixels for other things
        return timed(() => go("encode", kept));
      }
      if (name.startsWith("segment")) {
        const prompts = inputs.phrases.slice(0, Number(name.split(" ")[1]));
        return timed(() => segment(kept, prompts));
      }
      // From RGBA pixels of a picture that was never seen to maps: room for it, its program, its pixels, both steps.
      return timed(() => {
        const p = open();
        go("encode", p);
        segment(p, inputs.phrases.slice(0, inputs.counts[0]));
        go("close", p);
      });
    },
    answers(t, threshold) {
      const prompts = inputs.phrases.slice(0, t);
      return segment(kept, prompts, threshold).map((a, i) => {
        const mask = new Uint8Array(side * side);
        go("mask", kept, i, mask);
        return { ...a, mask };
      });
    },
    // Every answer of the package tells the memory; closing nothing is the shortest question.
    memory: async () => (await send("close", { picture: 0 })).memory,
  };
}

// -------------------------------------------------------------------------------------------------------------- theirs

async function loadTheirs(pixels, side, inputs) {
  const load = {};
  // onnxruntime-web does not say how large its memory is, so the constructor is asked.
  const memories = [];
  WebAssembly.Memory = new Proxy(WebAssembly.Memory, {
    construct(target, args) {
      const m = new target(...args);
      memories.push(m);
      return m;
    },
  });
  const start = clock();
  const ort = await import("/ort/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.logLevel = "error";
  const session = (file) => ort.InferenceSession.create(`/onnx/${file}.onnx`, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  const sessions = { encode: await session("encode") };
  for (const t of inputs.counts) sessions[`segment ${t}`] = await session(`segment-${t}`);
  load.load = clock() - start;
  sessions.both = await session("both");

  const data = new Float32Array(await (await fetch("/onnx/inputs.bin")).arrayBuffer());
  const many = inputs.phrases.length;
  const phrases = (t) => {
    const part = (offset, width) => data.subarray(offset, offset + t * width);
    const coefAt = many * (inputs.embed + inputs.row);
    const coef = new Float32Array(3 * t);
    for (let i = 0; i < 3; i++) coef.set(data.subarray(coefAt + i * many, coefAt + i * many + t), i * t);
    return {
      embeddings: new ort.Tensor("float32", part(0, inputs.embed), [t, inputs.embed]),
      rows: new ort.Tensor("float32", part(many * inputs.embed, inputs.row), [t, inputs.row]),
      coef: new ort.Tensor("float32", coef, [3, t]),
    };
  };
  const asked = Object.fromEntries(inputs.counts.map((t) => [`segment ${t}`, phrases(t)]));
  const cells = side * side;
  /** RGBA bytes to normalised planes, which is what the graph takes. */
  const tensor = () => {
    const planes = new Float32Array(3 * cells);
    for (let i = 0; i < cells; i++) {
      planes[i] = (pixels[4 * i] - 127) / 128;
      planes[cells + i] = (pixels[4 * i + 1] - 127) / 128;
      planes[2 * cells + i] = (pixels[4 * i + 2] - 127) / 128;
    }
    return new ort.Tensor("float32", planes, [1, 3, side, side]);
  };
  const ready = tensor();
  let memory = null;
  const small = `segment ${inputs.counts[0]}`;
  const wanted = ["P", "S"];
  const run = {
    async encode() {
      const out = await timed(() => sessions.encode.run({ pixels: ready }));
      memory = out.value;
      return out;
    },
    picture: () => timed(async () => {
      const encoded = await sessions.encode.run({ pixels: tensor() });
      return sessions[small].run({ ...encoded, ...asked[small] }, wanted);
    }),
    both: () => timed(() => sessions.both.run({ pixels: ready, ...asked[small] }, wanted)),
  };
  for (const t of inputs.counts) {
    const name = `segment ${t}`;
    run[name] = () => timed(() => sessions[name].run({ ...memory, ...asked[name] }, wanted));
  }
  return {
    load,
    async run(name) {
      const { ms, cpu } = await run[name]();
      return { ms, cpu };
    },
    async maps(t) {
      const { P, S } = await sessions[`segment ${t}`].run({ ...memory, ...asked[`segment ${t}`] }, wanted);
      return { P: P.data, S: S.data };
    },
    memory: () => ({ wasm: Math.max(0, ...memories.map((m) => m.buffer.byteLength)) }),
  };
}

// ----------------------------------------------------------------------------------------------------------- agreement

/**
 * Both sides' answers to the same phrases: scores, and the masks at the picture's resolution at several thresholds.
 * Their side's maps are tidied as model's tidy does it and painted by the definition of kernel.Paint: bilinear, cell i
 * centred at 4i+4.
 */
async function agreement(ours, theirs, inputs, side) {
  const found = [];
  for (const t of inputs.counts) {
    const { P, S } = await theirs.maps(t);
    const best = new Float64Array(t);
    for (let q = 0; q < inputs.queries; q++) {
      for (let i = 0; i < t; i++) best[i] = Math.max(best[i], P[q * (t + 1) + i]);
    }
    const { bias, logit, peak, prompts } = inputs.presence;
    const odds = (p) => Math.log(Math.min(Math.max(p, 1e-6), 1 - 1e-6) / (1 - Math.min(Math.max(p, 1e-6), 1 - 1e-6)));
    const mapOf = (i) => S.subarray(i * inputs.cells, (i + 1) * inputs.cells);
    const scores = Array.from(best, (b, i) =>
      1 / (1 + Math.exp(-(bias + logit * odds(b) + peak * odds(top(mapOf(i), side / 4)) + prompts * Math.log(t)))));
    const entry = { phrases: t, scoreDifference: 0, present: 0, compared: 0, worstIoU: 1, pixels: 0, differing: 0 };
    found.push(entry);
    for (const threshold of [0.1, 0.2, 0.3, inputs.theta, 0.5, 0.7]) {
      const answers = ours.answers(t, threshold);
      entry.present = answers.filter((a) => a.present).length;
      for (const [i, a] of answers.entries()) {
        entry.scoreDifference = Math.max(entry.scoreDifference, Math.abs(a.score - scores[i]));
        if (!a.present) continue; // its mask is empty by definition
        const map = paint(tidy(mapOf(i), side / 4, threshold), side);
        let both = 0, either = 0;
        for (let p = 0; p < map.length; p++) {
          const x = a.mask[p] === 1, y = map[p] > threshold;
          both += x && y;
          either += x || y;
          entry.differing += x !== y;
        }
        entry.pixels += map.length;
        if (either === 0) continue;
        entry.compared++;
        entry.worstIoU = Math.min(entry.worstIoU, both / either);
      }
    }
  }
  return found;
}

/** The largest value in every second row and column, which is what scores look at. */
function top(map, n) {
  let peak = 0;
  for (let y = 1; y < n; y += 2) for (let x = 1; x < n; x += 2) peak = Math.max(peak, map[y * n + x]);
  return peak;
}

/** A copy of a map without islands below 0.1 % of its cells or 5 % of the largest one, and without holes below 0.1 %. */
function tidy(map, n, threshold) {
  const out = Float32Array.from(map);
  const regions = (inside) => {
    const seen = new Uint8Array(out.length), found = [];
    for (let start = 0; start < out.length; start++) {
      if (seen[start] || !inside(out[start])) continue;
      const cells = [start];
      seen[start] = 1;
      for (let k = 0; k < cells.length; k++) {
        const i = cells[k], x = i % n;
        for (const j of [i - n, i + n, x > 0 ? i - 1 : -1, x < n - 1 ? i + 1 : -1]) {
          if (j < 0 || j >= out.length || seen[j] || !inside(out[j])) continue;
          seen[j] = 1;
          cells.push(j);
        }
      }
      found.push(cells);
    }
    return found;
  };
  const islands = regions((v) => v > threshold);
  const least = Math.max(0.001 * out.length, 0.05 * islands.reduce((a, r) => Math.max(a, r.length), 0));
  for (const r of islands) if (r.length < least) for (const i of r) out[i] = threshold / 2;
  for (const r of regions((v) => !(v > threshold))) {
    if (r.length < 0.001 * out.length) for (const i of r) out[i] = (1 + threshold) / 2;
  }
  return out;
}

function paint(map, side) {
  const n = side / 4;
  const taps = Array.from({ length: side }, (_, x) => {
    const at = Math.min(Math.max((x + 0.5 - 4) / 4, 0), n - 1);
    const i = Math.min(Math.floor(at), n - 2);
    return [i, at - i];
  });
  const out = new Float32Array(side * side);
  for (let y = 0; y < side; y++) {
    const [j, v] = taps[y];
    for (let x = 0; x < side; x++) {
      const [i, u] = taps[x];
      const top = map[j * n + i] * (1 - u) + map[j * n + i + 1] * u;
      const bottom = map[(j + 1) * n + i] * (1 - u) + map[(j + 1) * n + i + 1] * u;
      out[y * side + x] = top * (1 - v) + bottom * v;
    }
  }
  return out;
}
