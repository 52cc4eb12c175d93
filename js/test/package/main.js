// The app that internal/browsertest builds from the packed package, in every way that people do.
import { Segmenter } from "pmp-segment";

const send = (what) => fetch("/report", { method: "POST", body: JSON.stringify(what) });
const outcome = { test: "segments" };
try {
  const violations = [];
  document.addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));
  const weights = document.documentElement.dataset.weights;
  const seg = await Segmenter.load(weights ? { weights } : {});
  const picture = await seg.encode("/strict/examples/cat.jpg.as-png");
  const { masks } = await picture.segment(["cat", "dog"]);
  const { device, threads } = seg.report();
  if (!device.startsWith("simd")) throw new Error(`${device} runs`);
  seg.close();
  if (violations.length) throw new Error(`the policy was violated: ${violations}`);
  outcome.data = {
    photo: "cat.jpg",
    tolerance: 0.995,
    report: { device, threads },
    masks: masks.map((m) => ({ text: m.text, score: m.score, present: m.present, area: m.area, bbox: m.bbox, rle: m.rle() })),
  };
} catch (e) {
  outcome.error = `${e.code ?? e.name}: ${e.message}`;
}
await send(outcome);
await send({ finish: true, browser: navigator.userAgent });
