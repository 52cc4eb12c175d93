// Lets Node run the worker and its threads: index.js imports this file where there is no Worker. In a thread it gives
// the files written for browsers what they expect of a worker.
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { Worker as Thread, isMainThread, parentPort, workerData } from "node:worker_threads";

/** As much of a browser's Worker as this package needs. A program may end while none of its calls is waiting. */
export class NodeWorker {
  #thread;
  #waiting = new Set();
  onmessage = null;
  onerror = null;

  constructor(url) {
    this.#thread = new Thread(new URL(import.meta.url), { workerData: { pmp: String(url) } });
    this.#thread.on("message", (data) => {
      if (data.value !== undefined || data.error) this.#waiting.delete(data.id);
      this.#hold();
      this.onmessage?.({ data });
    });
    this.#thread.on("error", ({ message }) => this.onerror?.({ message }));
    this.#thread.on("exit", () => this.onerror?.({ message: "its thread ended" }));
    this.#hold();
  }

  postMessage(data, transfer) {
    if (data.call) this.#waiting.add(data.id);
    this.#hold();
    this.#thread.postMessage(data, transfer);
  }

  terminate() {
    this.onerror = null;
    this.#thread.terminate();
  }

  #hold() {
    if (this.#waiting.size) this.#thread.ref();
    else this.#thread.unref();
  }
}

/** Node's fetch does not read files. */
function fetchFiles(other) {
  return async (address, options) => {
    const url = new URL(address);
    if (url.protocol !== "file:") return other(address, options);
    options?.signal?.throwIfAborted();
    try {
      return new Response(await readFile(url), { headers: url.pathname.endsWith(".wasm") ? { "content-type": "application/wasm" } : {} });
    } catch (e) {
      return new Response(null, { status: 404, statusText: e.code });
    }
  };
}

// Another package's thread may import this file, too.
if (!isMainThread && workerData?.pmp) {
  Object.assign(globalThis, {
    self: globalThis,
    Worker: NodeWorker,
    fetch: fetchFiles(fetch),
    postMessage: (data, transfer) => parentPort.postMessage(data, transfer),
    crossOriginIsolated: true, // memory can always be shared
  });
  Object.defineProperty(globalThis, "navigator", { value: { hardwareConcurrency: availableParallelism(), userAgent: `Node ${process.version}` } });
  const early = [];
  parentPort.on("message", (data) => (self.onmessage ? self.onmessage({ data }) : early.push(data)));
  await import(workerData.pmp);
  for (const data of early) self.onmessage({ data });
}
