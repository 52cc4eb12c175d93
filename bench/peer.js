// A worker with one of the other engines: onnxruntime-web or LiteRT.js. It answers one message at a time, {call, args},
// with {value} or {error}. It is a classic worker, since LiteRT.js loads its code by importScripts.
//
// Each engine gets what is best for it. The pixels lie ready as the floats that its graph takes, which neither is charged
// for making. LiteRT's tensors stay in its own memory between the graphs, and what copying them costs is told beside;
// onnxruntime-web's wasm side always copies, so its two graphs are also run as one without copies between.

const clock = () => performance.now();
/** The WebAssembly memories that the engine made or got: neither engine says how large they are. */
const memories = new Set();
const { Memory } = WebAssembly;
WebAssembly.Memory = new Proxy(Memory, {
  construct(target, args) {
    const m = new target(...args);
    memories.add(m);
    return m;
  },
});
for (const name of ["instantiate", "instantiateStreaming"]) {
  const plain = WebAssembly[name];
  WebAssembly[name] = async (...args) => {
    const out = await plain.apply(WebAssembly, args);
    for (const e of Object.values((out.instance ?? out).exports ?? {})) if (e instanceof Memory) memories.add(e);
    return out;
  };
}

let engine;
const calls = {
  async load({ kind, precision, threads, device }) {
    engine = await { onnxruntime: device === "webgpu" ? onnxruntimeCard : onnxruntime, litert }[kind](precision, threads);
    return { device: engine.device };
  },
  /** RGBA bytes of a square picture: made ready, not yet looked at. */
  pixels({ rgba, side }) {
    const floats = new Float32Array(3 * side * side);
    const [step, plane] = engine.planes ? [1, side * side] : [3, 1];
    for (let i = 0; i < side * side; i++) {
      for (let c = 0; c < 3; c++) floats[i * step + c * plane] = (rgba[4 * i + c] - 127) / 128;
    }
    return engine.pixels(floats, side);
  },
  /** Runs both graphs, and says how long each took. */
  run: () => engine.run(),
  /** The same in another way that may be better or worse, if there is one. */
  other: () => engine.other?.(),
  async maps() {
    const { P, S } = await engine.maps();
    return { P: P.slice(), S: S.slice() };
  },
  heap: () => [...memories].reduce((sum, m) => sum + m.buffer.byteLength, 0),
};

self.onmessage = async ({ data: { call, args } }) => {
  try {
    self.postMessage({ value: await calls[call](args) });
  } catch (e) {
    self.postMessage({ error: String(e?.stack ?? e) });
  }
};

/** Runs f and adds the time it took to times[name]. */
async function timed(times, name, f) {
  const start = clock();
  const out = await f();
  times[name] = clock() - start;
  return out;
}

/** The phrases' embeddings, rows and coefficients with their shapes. */
async function phrases() {
  const inputs = await (await fetch("/cache/inputs.json")).json();
  const data = new Float32Array(await (await fetch("/cache/inputs.bin")).arrayBuffer());
  const t = inputs.phrases.length;
  let at = 0;
  const next = (...shape) => {
    const n = shape[0] * shape[1];
    return { data: data.slice(at, (at += n)), shape };
  };
  return { memory: inputs.memory, embeddings: next(t, inputs.embed), rows: next(t, inputs.row), coef: next(3, t) };
}

async function onnxruntime(precision, threads) {
  const ort = await import("/ort/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.logLevel = "error";
  const suffix = precision === "int8" ? "-int8" : "";
  const session = (name) => ort.InferenceSession.create(`/cache/${name}${suffix}.onnx`, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  const encode = await session("encode"), segment = await session("segment");
  const { embeddings, rows, coef } = await phrases();
  const tensor = ({ data, shape }) => new ort.Tensor("float32", data, shape);
  const asked = { embeddings: tensor(embeddings), rows: tensor(rows), coef: tensor(coef) };
  let pixels, whole, answer;
  return {
    device: "wasm", planes: true,
    pixels(floats, side) {
      pixels = new ort.Tensor("float32", floats, [1, 3, side, side]);
    },
    async run() {
      const times = {};
      const memory = await timed(times, "encode", () => encode.run({ pixels }));
      answer = await timed(times, "segment", () => segment.run({ ...memory, ...asked }));
      return times;
    },
    async other() {
      if (precision === "int8") return {};
      whole ??= await session("both");
      const times = {};
      await timed(times, "whole", () => whole.run({ pixels, ...asked }));
      return times;
    },
    async maps() {
      await this.run();
      return { P: answer.P.data, S: answer.S.data };
    },
  };
}

/**
 * onnxruntime-web on the graphics card. All that it takes lies there already, what encode leaves stays there, and times end
 * when the card has ended.
 */
async function onnxruntimeCard() {
  const ort = await import("/ort/ort.webgpu.min.mjs");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.webgpu.powerPreference = "high-performance";
  ort.env.logLevel = "error";
  const session = (name, where) => ort.InferenceSession.create(`/cache/${name}.onnx`,
    { executionProviders: ["webgpu"], graphOptimizationLevel: "all", preferredOutputLocation: where });
  const encode = await session("encode", "gpu-buffer"), segment = await session("segment", "cpu");
  const card = await ort.env.webgpu.device;
  const { embeddings, rows, coef } = await phrases();
  const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
  const tensor = ({ data, shape }) => {
    const buffer = card.createBuffer({ size: Math.ceil(data.byteLength / 16) * 16, usage: STORAGE | COPY_SRC | COPY_DST });
    card.queue.writeBuffer(buffer, 0, data);
    return ort.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims: shape, dispose: () => buffer.destroy() });
  };
  const asked = { embeddings: tensor(embeddings), rows: tensor(rows), coef: tensor(coef) };
  let pixels, whole, answer;
  return {
    device: "webgpu", planes: true,
    async pixels(floats, side) {
      pixels?.dispose();
      pixels = tensor({ data: floats, shape: [1, 3, side, side] });
      await card.queue.onSubmittedWorkDone();
    },
    async run() {
      const times = {};
      const memory = await timed(times, "encode", async () => {
        const out = await encode.run({ pixels });
        await card.queue.onSubmittedWorkDone();
        return out;
      });
      answer = await timed(times, "segment", () => segment.run({ ...memory, ...asked }));
      for (const t of Object.values(memory)) t.dispose();
      return times;
    },
    async other() {
      whole ??= await session("both", "cpu");
      const times = {};
      await timed(times, "whole", () => whole.run({ pixels, ...asked }));
      return times;
    },
    async maps() {
      await this.run();
      return { P: answer.P.data, S: answer.S.data };
    },
  };
}

async function litert(precision, threads) {
  const threaded = threads > 1;
  // In a worker, Emscripten cannot tell where its script came from and which its threads have to load.
  const folder = "/lite/core/wasm/";
  self.Module = { locateFile: (name) => folder + name, mainScriptUrlOrBlob: `${folder}litert_wasm_${threaded ? "threaded_" : ""}internal.js` };
  const lite = await import("/lite/core/dist/index.js");
  await lite.loadLiteRt(folder, { threads: threaded });
  const model = async (name) => {
    const m = await lite.loadAndCompile(`/cache/${name}.tflite`, { accelerator: "wasm", cpuOptions: { numThreads: threads } });
    const order = (details, word) => details.map((d) => d.name).sort((a, b) => number(a, word) - number(b, word));
    return { model: m, inputs: order(m.getInputDetails(), "args"), outputs: order(m.getOutputDetails(), "output") };
  };
  const number = (name, word) => Number(name.match(new RegExp(`${word}_(\\d+)`))[1]);
  const encode = await model(precision === "int8" ? "encode-int8" : "encode"), segment = await model("segment");
  const { embeddings, rows, coef } = await phrases();
  const tensor = ({ data, shape }) => new lite.Tensor(data, shape);
  const asked = [embeddings, rows, coef].map(tensor);
  const run = async ({ model, inputs, outputs }, tensors) => {
    const out = await model.run(Object.fromEntries(inputs.map((name, i) => [name, tensors[i]])));
    return outputs.map((name) => out[name]);
  };
  const free = (tensors) => tensors.forEach((t) => t.delete());
  const copy = (t) => ({ data: t.toTypedArray().slice(), shape: [...t.type.layout.dimensions] });
  let plain, pixels, answer, bytes;
  return {
    device: `wasm (XNNPACK${encode.model.isFullyAccelerated && segment.model.isFullyAccelerated ? "" : ", not all"})`,
    pixels(data, side) {
      plain = { data, shape: [1, side, side, 3] };
      pixels?.delete();
      pixels = tensor(plain);
    },
    async run() {
      const times = {};
      const memory = await timed(times, "encode", () => run(encode, [pixels]));
      await timed(times, "segment", async () => {
        const out = await run(segment, [...memory, ...asked]);
        answer = out.map((t) => copy(t).data);
        free(out);
      });
      free(memory);
      return times;
    },
    /** With inputs copied in and outputs copied out, as onnxruntime-web does; and with an encode that is int8 all through. */
    async other() {
      const times = {};
      if (precision === "int8") {
        bytes ??= await model("encode-bytes");
        free(await timed(times, "encode_bytes", () => run(bytes, [pixels])));
      }
      const memory = await timed(times, "encode_copied", async () => {
        const input = tensor(plain), out = await run(encode, [input]);
        const copied = out.map(copy);
        free([input, ...out]);
        return copied;
      });
      await timed(times, "segment_copied", async () => {
        const input = [...memory, embeddings, rows, coef].map(tensor), out = await run(segment, input);
        out.map(copy);
        free([...input, ...out]);
      });
      return times;
    },
    async maps() {
      await this.run();
      return { P: answer[0], S: answer[1] };
    },
  };
}
