// Threads for the kernels: workers that run the same WebAssembly module on one shared memory.
// The engine's worker starts them and is itself the first of them.

/** A thread that has not answered after this many ms never will. */
const START = 10_000;
/** The most that the memory may become, in MiB; where a browser has no room for that, less. */
const MEMORY = [2048, 1024, 512];
/** The most threads that start unasked, and the most that the kernels know. */
const USUAL = 8, MOST = 32;
const PAGE = 1 << 16, MIB = 1 << 20;

/**
 * How many threads to start, and, if that is fewer than wanted or one, why.
 *
 * @param {number|"auto"} wanted
 * @returns {{threads: number, reason?: string}}
 */
export function threadsFor(wanted) {
  if (wanted === 1) return { threads: 1, reason: "one thread runs, as the page asked" };
  if (!globalThis.crossOriginIsolated) {
    return {
      threads: 1,
      reason: "one thread runs, because the page is not cross-origin isolated: send the headers " +
        "Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp with every file",
    };
  }
  if (typeof Worker !== "function" || typeof SharedArrayBuffer !== "function") {
    return { threads: 1, reason: "one thread runs, because this browser does not start workers from a worker" };
  }
  // More threads than processors only wait for each other.
  const processors = navigator.hardwareConcurrency || 1;
  if (processors === 1) return { threads: 1, reason: "one thread runs, because this machine has one processor" };
  if (wanted === "auto") return { threads: Math.min(USUAL, phone() ? Math.max(2, processors >> 1) : processors) };
  const most = Math.min(processors, MOST);
  if (wanted <= most) return { threads: wanted };
  return { threads: most, reason: `${most} threads run, because this machine has no more processors` };
}

/** Half of a phone's processors are small ones, for which the others would have to wait. */
function phone() {
  return navigator.userAgentData?.mobile ?? /Android|iPhone|iPad|Mobile/.test(navigator.userAgent);
}

/** Whether a module comes from another host than the page, such as a CDN, whose files browsers do not start as workers. */
export function elsewhere(module) {
  const { protocol, origin } = new URL(module);
  return /^https?:$/.test(protocol) && /^https?:/.test(globalThis.location?.origin) && origin !== location.origin;
}

/** A worker that imports a file of another host, which that must allow by CORS. The page's policy must allow blob: workers. */
export function workerFrom(url) {
  const own = URL.createObjectURL(new Blob([`import ${JSON.stringify(url)};`], { type: "text/javascript" }));
  const worker = new Worker(own, { type: "module" });
  setTimeout(() => URL.revokeObjectURL(own), 60_000);
  return worker;
}

/**
 * Starts threads.
 *
 * @param {{module: Uint8Array, threads: number}} options
 * @returns {Promise<object>} what kernel/simd's NewThreads takes: the number of threads, the
 *   memory, its first free address, the first thread's exports, and close(), which ends the others
 * @throws {Error} if not all of them start; its message says why
 */
export async function startThreads({ module: bytes, threads }) {
  const workers = [];
  // They are not woken before: Chromium sometimes keeps a worker for ever that comes to its end
  // while it is being terminated.
  const close = () => workers.forEach((w) => w.terminate());
  try {
    const module = await WebAssembly.compile(bytes);
    const memory = sharedMemory();
    const { exports } = new WebAssembly.Instance(module, { env: { memory } });
    const first = exports.scratchStart.value, size = exports.scratchSize.value;
    const start = first + threads * size;
    memory.grow(Math.ceil(start / PAGE) - memory.buffer.byteLength / PAGE);
    exports.begin(first, 0, threads);
    await Promise.all(Array.from({ length: threads - 1 }, (_, i) => startOne(workers, { module, memory, scratch: first + (i + 1) * size, thread: i + 1, threads })));
    return { threads, memory, start, exports, close };
  } catch (e) {
    close();
    throw e;
  }
}

function sharedMemory() {
  const sizes = phone() ? MEMORY.slice(1) : MEMORY;
  for (const size of sizes) {
    try {
      return new WebAssembly.Memory({ initial: 1, maximum: size * (MIB / PAGE), shared: true });
    } catch (e) {
      if (size === sizes.at(-1)) throw e;
    }
  }
}

function startOne(workers, message) {
  return new Promise((resolve, reject) => {
    const name = "kernel-worker.js";
    const worker = elsewhere(import.meta.url)
      ? workerFrom(new URL(name, import.meta.url))
      : new Worker(new URL("./kernel-worker.js", import.meta.url), { type: "module" });
    workers.push(worker);
    const timer = setTimeout(() => reject(new Error(`a thread did not answer within ${START / 1000} s`)), START);
    worker.onmessage = ({ data }) => {
      clearTimeout(timer);
      if (data.ready) resolve();
      else reject(new Error(data.error));
    };
    worker.onerror = (e) => {
      e.preventDefault?.();
      clearTimeout(timer);
      reject(new Error(e.message || "kernel-worker.js could not be loaded; check that it lies beside threads.js and comes with the same headers"));
    };
    worker.postMessage(message);
  });
}
