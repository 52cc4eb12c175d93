// What main.js does, in Node: node node.js PIXELS WIDTH HEIGHT prints the answers. PIXELS is a file of RGBA bytes.
import { readFile } from "node:fs/promises";
import { PMPError, Segmenter } from "pmp-segment";

const [file, width, height] = process.argv.slice(2);
const stages = [];
const seg = await Segmenter.load({ onprogress: ({ stage }) => stages.push(stage) });
const picture = await seg.encode({ data: await readFile(file), width: Number(width), height: Number(height) });
const { masks, labelMap } = await picture.segment(["cat", "dog"]);
const { device, threads } = seg.report();

const errors = [];
const note = async (promise) => errors.push(await promise.then(() => "none", (e) => (e instanceof PMPError ? e.code : e.name)));
await note(seg.encode("cat.jpg")); // Node cannot decode pictures
await note(picture.segment([]));
await note(Segmenter.load({ signal: AbortSignal.abort() }));
await note(Segmenter.load({ weights: new URL("nowhere/", import.meta.url) }));
const closing = seg.encode({ data: new Uint8Array(4 * 512 * 512), width: 512, height: 512 });
seg.close();
await note(closing);

console.log(JSON.stringify({
  stages: [...new Set(stages)],
  errors,
  labelled: labelMap.length,
  answer: {
    photo: "cat.jpg",
    tolerance: 0.995,
    report: { device, threads },
    masks: masks.map((m) => ({ text: m.text, score: m.score, present: m.present, area: m.area, bbox: m.bbox, rle: m.rle() })),
  },
}));
// A server that renders pages imports the element's file, too: onnxruntime#21811.
await import("pmp-segment/element");
// A program ends by itself, although this model is not closed.
await Segmenter.load({ threads: 1 });
