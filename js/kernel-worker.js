// One thread of the kernels, see threads.js. It never returns to its event loop: between runs
// it sleeps inside work().
self.onmessage = ({ data: { module, memory, scratch, thread, threads } }) => {
  let exports;
  try {
    ({ exports } = new WebAssembly.Instance(module, { env: { memory } }));
    exports.begin(scratch, thread, threads);
  } catch (e) {
    self.postMessage({ error: e.message });
    return;
  }
  self.postMessage({ ready: true });
  try {
    exports.work();
  } catch {
    // A bug of ours stopped this thread, or another one. The others must not wait for it; the
    // first thread tells the page.
    exports.fail();
  }
};
