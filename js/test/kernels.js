// Runs the tests of kernel/simd, a Go program, in a worker of the page. The address says how:
// ?variant=plain&threads=1,2&run=Device. What they print goes to the server and to the page.
const worker = new Worker(new URL("./kernels-worker.js", import.meta.url), { type: "module" });
let last = Promise.resolve(); // one after the other, so that lines stay in order
const send = (what) => (last = last.then(() => fetch("/report", { method: "POST", body: JSON.stringify(what) }).catch(() => {})));
const shown = document.getElementById("log");

worker.onmessage = ({ data: { line, code } }) => {
  if (line !== undefined) {
    shown.textContent += `${line}\n`;
    send({ log: line });
  } else {
    send({ finish: true, browser: navigator.userAgent, error: code === 0 ? "" : `exit code ${code}` });
  }
};
worker.onerror = (e) => send({ finish: true, error: `the worker stopped: ${e.message}` });

const asked = new URLSearchParams(location.search);
worker.postMessage({
  env: { PMP_VARIANT: asked.get("variant") ?? "", PMP_THREADS: asked.get("threads") ?? "" },
  args: ["-test.v", `-test.run=${asked.get("run") ?? ""}`],
});
