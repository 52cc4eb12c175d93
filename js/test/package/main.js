// The app that internal/browsertest builds from the packed package, in every way that people do.
import { Segmenter } from "pmp-segment";
import { answer } from "./app.js";

const send = (what) => fetch("/report", { method: "POST", body: JSON.stringify(what) });
const violations = [];
document.addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));

const folder = document.documentElement.dataset.weights;
const weights = folder && new URL(folder, document.baseURI).href;
await send(await answer("in the page", Segmenter, weights));
if (globalThis.classic) await send(await globalThis.classic);
const worker = new Worker(new URL("./inside.js", import.meta.url), { type: "module" });
await send(await new Promise((resolve) => {
  const test = "in a module worker";
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = ({ message }) => resolve({ test, error: `the worker did not start: ${message}` });
  worker.postMessage({ weights });
}));
await send({ test: "policy", error: violations.join("; ") });
await send({ finish: true, browser: navigator.userAgent });
