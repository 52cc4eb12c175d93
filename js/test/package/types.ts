// Only compiled: what index.d.ts and element.d.ts allow, and what they refuse.
import { Mask, PMPError, Segmenter, type ErrorCode, type Picture, type Report, type SegmentResult } from "pmp-segment";
import "pmp-segment/element";

export async function everything(img: HTMLImageElement, video: HTMLVideoElement, files: FileList, bytes: Uint8Array) {
  const { signal } = new AbortController();
  const seg: Segmenter = await Segmenter.load({ device: "auto", threads: 2, precision: "int8", cache: false, signal, onprogress: ({ stage, loaded }) => `${stage} ${loaded.toFixed()}` });
  await Segmenter.load({ weights: files });
  await Segmenter.load({ weights: [new File(["{}"], "manifest.json")] });
  await Segmenter.load({ weights: { manifest: bytes, shards: { "a.safetensors": new Blob() } } });
  const picture: Picture = await seg.encode(img, { signal });
  await seg.encode({ data: bytes, width: 1, height: 1 });
  for (const source of [video, new URL("https://example.org/a.jpg"), "a.jpg", new OffscreenCanvas(1, 1)]) await seg.encode(source);
  const { masks, labelMap, width }: SegmentResult = await picture.segment(["dog", "sofa, couch"], { threshold: 0.5, labelMap: true, guided: false, signal });
  const one: Mask = masks[0];
  const numbers: number[] = [one.score, one.area, ...one.bbox, width, ...one.polygons()[0], one.rle().size[0], labelMap?.[0] ?? 255];
  const forms: [ImageData, ImageBitmap, Blob] = [one.toImageData({ color: [1, 2, 3, 4] }), await one.toImageBitmap(), await one.toBlob({ type: "image/webp", quality: 0.5 })];
  const proposals: Mask[] = await picture.proposals(new Set(["dog"]), { guided: true });
  const { bitmap, answers } = await picture.overlay("dog", { colors: [[1, 2, 3]] });
  const drawn: [ImageBitmap, boolean] = [bitmap, answers[0].present];
  for await (const { time, dropped, masks } of seg.video(video, () => ["dog"], { signal })) numbers.push(time, dropped, masks.length);
  const report: Report = seg.report(), labels: string[] | null = seg.labels;
  picture.close();
  seg.close();
  const element = document.createElement("pmp-segment");
  element.prompts = "dog; cat";
  const found: number | undefined = element.result?.masks.length;
  return [labels, numbers, forms, proposals, drawn, report.times.encode, found];
}

export function codes(e: unknown): ErrorCode | null {
  return e instanceof PMPError ? e.code : null;
}

export async function refused(seg: Segmenter, picture: Picture) {
  // @ts-expect-error a Segmenter is loaded, not made
  new Segmenter();
  // @ts-expect-error there is no such device
  await Segmenter.load({ device: "gpu" });
  // @ts-expect-error nor such a source
  await seg.encode(7);
  // @ts-expect-error prompts are strings
  await picture.segment([1]);
  // @ts-expect-error what a network knows cannot be set
  seg.labels = ["dog"];
  // @ts-expect-error what is measured cannot be set
  (await picture.segment("dog")).masks[0].area = 7;
  // @ts-expect-error no frames come from a picture
  seg.video(new Image(), "dog");
}
