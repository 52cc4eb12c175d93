// What every app does with the packed package, wherever it runs, for internal/browsertest to check.
export async function answer(test, Segmenter, weights) {
  const outcome = { test };
  try {
    const seg = await Segmenter.load(weights ? { weights } : {});
    const picture = await seg.encode("/strict/examples/cat.jpg.as-png");
    const { masks } = await picture.segment(["cat", "dog"]);
    const { device, threads } = seg.report();
    seg.close();
    if (!device.startsWith("simd")) throw new Error(`${device} runs`);
    const want = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
    if (threads !== want) throw new Error(`${threads} threads run, not ${want}`);
    outcome.data = {
      photo: "cat.jpg",
      tolerance: 0.995,
      report: { device, threads },
      masks: masks.map((m) => ({ text: m.text, score: m.score, present: m.present, area: m.area, bbox: m.bbox, rle: m.rle() })),
    };
  } catch (e) {
    outcome.error = `${e.code ?? e.name}: ${e.message}`;
  }
  return outcome;
}
