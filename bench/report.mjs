// The benchmark's results as text.

const number = (x) => (x === undefined || x === null ? "" : x < 10 ? x.toFixed(2) : x < 100 ? x.toFixed(1) : x.toFixed(0));
const row = (...cells) => `| ${cells.join(" | ")} |`;
const table = (head, rows) => [row(...head), row(...head.map((_, i) => (i ? "---:" : "---"))), ...rows.map((r) => row(...r))];
/** The median of a field, and the extremes where they say something. */
const spread = (run, name) => run[name] === undefined ? "" : `${number(run[name])} [${number(run[`${name}_min`])}..${number(run[`${name}_max`])}]`;

/** How far a row's masks are from the reference's. */
const agreement = (r) => r.iou === undefined ? "" : `${r.iou.toFixed(3)}, ${r.iou_mean.toFixed(3)}, ${r.iou_min.toFixed(3)}`;

/** The shortest of a list of {ms, name}. */
const best = (list) => list.reduce((a, b) => (b.ms < a.ms ? b : a));

/** An engine's best pipelines with so many threads: name and time of encode and segment together. */
function pipelines(runs, kind, threads, part) {
  const list = [];
  for (const r of runs.filter((r) => r.engine.startsWith(kind) && r.threads === threads)) {
    list.push({ name: r.engine, ms: r[`total_ms${part}`] });
    if (r.whole_ms) list.push({ name: `${r.engine} as one graph`, ms: r[`whole_ms${part}`] });
  }
  return list;
}

function ratios(runs) {
  const rows = [];
  for (const ours of runs.filter((r) => r.engine.startsWith("pmp-"))) {
    const of = (kind) => {
      const [medians, minima] = ["", "_min"].map((part) => pipelines(runs, kind, ours.threads, part));
      if (!medians.length) return ["", ""];
      const m = best(medians);
      return [`${(m.ms / ours.total_ms).toFixed(2)} (${m.name})`, (best(minima).ms / ours.total_ms_min).toFixed(2)];
    };
    const [a, b] = of("onnxruntime"), [c, d] = of("litert");
    if (a || c) rows.push([`${ours.engine}, ${ours.threads}`, a, b, c, d]);
  }
  return table(["ours, threads", "onnxruntime-web's best ÷ ours", "of minima", "LiteRT.js' best ÷ ours", "of minima"], rows);
}

/** What our own rows say about threads and about new words. */
function remarks(runs) {
  const lines = [];
  const one = runs.find((r) => r.engine === "pmp-int8" && r.threads === 1) ?? runs.find((r) => r.engine === "pmp-f32" && r.threads === 1);
  for (const r of runs.filter((r) => one && r.engine === one.engine && r.threads > 1)) {
    lines.push(`${r.engine}: ${r.threads} threads encode ${(one.encode_ms / r.encode_ms).toFixed(2)} times as fast as one, and segment ${(one.segment_ms / r.segment_ms).toFixed(2)} times.`);
  }
  if (one?.words_ms) {
    lines.push(`${one.engine}, one thread: 20 words never seen before take ${number(one.words_ms)} ms on an encoded picture, `
      + `${Math.round(100 * one.words_ms / (one.encode_ms + one.words_ms))} % of encoding and asking for them; the same words again ${number(one.segment_ms)} ms, `
      + `${Math.round(100 * one.segment_ms / one.total_ms)} % of encoding and asking.`);
  }
  return lines;
}

// ------------------------------------------------------------------------------------------------------------------ ops

/**
 * How long an op's matrix products take in bare loops of their shapes, and at the rate of a loop in the first cache; for
 * bytes in the faster of the two integer loops.
 */
function bare(op, { shapes, rate }) {
  const found = { bare: 0, least: 0 };
  for (const { shape, int8 } of op.gemms ?? []) {
    const { ms } = shapes.find((s) => s.shape.join() === shape.join());
    found.bare += int8 ? Math.min(ms.int8 ?? Infinity, ms.int16) : ms.f32;
    found.least += 2 * shape.reduce((a, b) => a * b) / 1e6 / (int8 ? Math.max(rate.int8 ?? 0, rate.int16) : rate.f32);
  }
  return found;
}

function groups(ops, ceiling, key) {
  const found = new Map();
  for (const op of ops) {
    const g = found.get(key(op)) ?? { name: key(op), n: 0, ms: 0, flops: 0, bare: 0, least: 0 };
    g.n++;
    g.ms += op.ms;
    g.flops += op.flops;
    const { bare: loops, least } = bare(op, ceiling);
    g.bare += loops;
    g.least += least;
    found.set(key(op), g);
  }
  return [...found.values()].sort((a, b) => b.ms - a.ms);
}

const share = (ms, g) => (ms ? `${Math.round(100 * ms / g.ms)} %` : "");
const line = (g) => [g.name, g.n, number(g.ms), g.flops ? number(g.flops / g.ms / 1e6) : "", share(g.bare, g), share(g.least, g)];
const HEAD = ["op", "times", "ms", "GFLOP/s", "of the bare loop", "of the ceiling"];

/** The ops of both steps by kind, and all with matrix products together. */
function kinds({ encode, segment }, ceiling) {
  const all = [...encode.ops, ...segment.ops];
  return [...groups(all, ceiling, (op) => op.kind), ...groups(all.filter((op) => op.gemms?.length), ceiling, () => "all with matrix products")];
}

/** The same for programs. */
export function opsSummary({ precisions, ceiling }) {
  const of = (p) => kinds(p, ceiling).map(({ name, n, ms, flops, bare, least }) => ({
    kind: name, times: n, ms, ...(flops && { gflops: flops / ms / 1e6 }), ...(bare && { of_bare_loop: bare / ms, of_ceiling: least / ms }),
  }));
  return { ceiling_gflops: ceiling.rate, ...Object.fromEntries(Object.entries(precisions).map(([name, p]) => [name, of(p)])) };
}

/** Where the time goes: each kind of op, and with `most` also the ops that take most. */
export function opsTable({ precisions, ceiling }, most = 0) {
  const lines = [];
  const rates = Object.entries(ceiling.rate).map(([kind, rate]) => `${kind} ${number(rate)}`).join(", ");
  lines.push(`The ceiling, bare loops with all numbers in the first cache, GFLOP/s: ${rates}. (int8 is the relaxed dot product, int16 the one that every browser has.)`);
  for (const [precision, p] of Object.entries(precisions)) {
    const sum = ({ ops }) => number(ops.reduce((s, op) => s + op.ms, 0));
    lines.push("", `${precision}, one thread, device "${p.device}"; encode ${number(p.encode.whole)} ms as a whole, ${sum(p.encode)} ms as the sum of its ops; `
      + `segment ${number(p.segment.whole)} and ${sum(p.segment)} ms.`, "", ...table(HEAD, kinds(p, ceiling).map(line)));
    if (most) lines.push("", ...table(HEAD, groups([...p.encode.ops, ...p.segment.ops], ceiling, (op) => `${op.kind} ${op.shape}`).slice(0, most).map(line)));
  }
  return lines.join("\n");
}

// ---------------------------------------------------------------------------------------------------------------- whole

export function markdown({ machine: m, runs, ops, card }) {
  const lines = [];
  lines.push("# Speed beside onnxruntime-web and LiteRT.js", "",
    "The same network with the same weights on the same picture, 512×512, 20 phrases, all engines in turns in one page of one browser: `./build.sh bench`.",
    "Times depend on the machine and on what else it does; the ratios are the figures to look at.", "",
    `${m.date.slice(0, 16).replace("T", " ")} UTC; ${m.browser} (headless), page cross-origin isolated; ${m.cores} × ${m.cpu}, ${m.system}; `
    + `load average ${m.load_average[0].toFixed(1)} before, ${m.load_average[1].toFixed(1)} after; onnxruntime-web ${m.onnxruntime}, @litertjs/core ${m.litert}; `
    + `${runs.length ? `${m.rounds} rounds after ${m.warm_up} to warm up; ` : ""}weights ${m.weights}.`, "");
  if (runs.length) lines.push(...onProcessor(m, runs, ops));
  if (card) lines.push(...(runs.length ? [""] : []), ...onCard(card));
  return lines.join("\n") + "\n";
}

function onProcessor(m, runs, ops) {
  const lines = ["## Times", ""];
  lines.push("Milliseconds: median [least..most].", "");
  lines.push(...table(["engine", "threads", "encode", "segment", "both", "segment with 20 new words", "IoU: all pixels, mean, worst", "found by one only"],
    runs.map((r) => [r.engine, r.threads, spread(r, "encode_ms"), spread(r, "segment_ms"), spread(r, "total_ms"), spread(r, "words_ms"), agreement(r), `${r.found_differently} of ${r.prompts}`])));
  const others = runs.flatMap((r) => [
    ...(r.whole_ms ? [[`${r.engine} as one graph, nothing copied between`, r.threads, "", "", spread(r, "whole_ms")]] : []),
    ...(r.encode_copied_ms ? [[`${r.engine}, with copies in and out`, r.threads, spread(r, "encode_copied_ms"), spread(r, "segment_copied_ms"), ""]] : []),
    ...(r.encode_bytes_ms ? [[`${r.engine}, all convolutions int8: masks far off`, r.threads, spread(r, "encode_bytes_ms"), spread(r, "segment_ms"), spread(r, "total_bytes_ms")]] : []),
  ]);
  if (others.length) lines.push("", ...table(["the same in another way", "threads", "encode", "segment", "both"], others));
  lines.push("", "Every clock is the one of the worker that computes. Our encode begins with RGBA bytes, the others' with ready floats, and what ours does for a new picture besides "
    + `(memory, program, writing the pixels: ${number((runs[0].begin_ms ?? 0) + (runs[0].write_ms ?? 0))} ms) is not in it; segment ends with probabilities and maps for all. `
    + "onnxruntime-web copies what its graphs take and give; LiteRT.js' tensors stay in its memory, only the answer is copied out. New words are embedded first, "
    + `which the other engines have no part for: they are given embeddings. IoU is that of masks with those of the first row, for the ${m.pictures} example pictures and each phrase that both find: of all their pixels together, the mean and the worst of ${runs[0].masks_compared} masks. The last column counts phrases that only one of both finds.`, "");
  lines.push("## Ratios", "", "Encode and segment together, the best of the other engine's pipelines with as many threads.", "", ...ratios(runs), "", ...remarks(runs), "");
  lines.push("## Loading and memory", "", "Each engine in a browser of its own, from the same machine; cached: the page loaded again. Memory of the renderer is the most it had, less that of a page without an engine.", "");
  const mb = (n) => (n / 1e6).toFixed(2);
  lines.push(...table(["engine", "threads", "load, ms", "cached, ms", "first encode, ms", "first segment, ms", "WebAssembly memory, MiB", "renderer, MiB", "code, MB (brotli −11)", "weights, MB"],
    runs.map((r) => [r.engine, r.threads, spread(r, "load_ms"), spread(r, "load_cached_ms"), number(r.first_encode_ms), number(r.first_segment_ms),
      number(r.heap_mib), number(r.renderer_mib), mb(r.code_bytes), mb(r.weights_bytes)])));
  lines.push("", "Our weights contain the text encoder and its vocabulary, and our first segment embeds the words.", "");
  lines.push("## Where our time goes", "", opsTable(ops), "",
    "The bare loop is a matrix product of the same shape and nothing else, made for this measurement with every size a constant in its code; for bytes the faster of the two integer loops. "
    + "The ceiling is such a loop whose numbers all lie in the first cache. The share of an op that does more than its products, as an inverted residual does with its depthwise convolution, counts all of its time.");
  return lines;
}

/** The rows on the graphics card: times, the ratio to the other engine's best pipeline, and what ours takes. */
function onCard({ adapter: a, software, rounds, warm_up, pictures, runs }) {
  const lines = ["## On the graphics card", ""];
  const label = software ? " (software)" : "";
  if (software) lines.push("**Software, correctness only, says nothing about speed**: this graphics card is a program on the processor.", "");
  lines.push(`${[a.vendor, a.architecture, a.device, a.description].filter(Boolean).join(", ")}; a browser of its own, the rows in turns, ${rounds} round${rounds === 1 ? "" : "s"} after ${warm_up} to warm up. `
    + `Its optional features: ${a.features.join(", ") || "none"}.`, "");
  const ours = runs.filter((r) => r.work);
  for (const r of ours) lines.push(`- ${r.engine} runs on "${r.device}"; features used and tuning: ${r.features?.join(", ") || "none told"}.`);
  if (ours.length) lines.push("");
  const peers = (part) => runs.filter((r) => !r.work).flatMap((r) => [{ name: r.engine, ms: r[`total_ms${part}`] },
    ...(r.whole_ms ? [{ name: `${r.engine} as one graph`, ms: r[`whole_ms${part}`] }] : [])]);
  const ratio = (r) => {
    if (software || !r.work || !peers("").length) return ["", ""];
    const m = best(peers(""));
    return [`${(m.ms / r.total_ms).toFixed(2)} (${m.name})`, (best(peers("_min")).ms / r.total_ms_min).toFixed(2)];
  };
  lines.push(...table(["engine", "encode, ms", "segment, ms", "both, ms", "segment with 20 new words, ms", "GFLOP/s of encode", "onnxruntime-web's best ÷ ours", "of minima",
    "IoU: all pixels, mean, worst", "found by one only"],
  runs.flatMap((r) => [
    [r.engine + label, spread(r, "encode_ms"), spread(r, "segment_ms"), spread(r, "total_ms"), spread(r, "words_ms"), number(r.gflops), ...ratio(r), agreement(r), `${r.found_differently} of ${r.prompts}`],
    ...(r.whole_ms ? [[`${r.engine} as one graph, nothing copied between${label}`, "", "", spread(r, "whole_ms"), "", "", "", "", "", ""]] : []),
  ])));
  lines.push("", "Milliseconds: median [least..most], until the card has ended. What onnxruntime-web takes lies on the card as floats beforehand and what its encode leaves stays there; its answer is copied to the processor. "
    + `Ours begins with RGBA bytes on the card${software ? ", and its segment embeds the words too, since it is the first one" : ""}. `
    + "GFLOP/s: the network's products, not what is dispatched, in the time of encode. "
    + `IoU is that of masks with those of pmp-f32 on the processor with one thread, for ${pictures === 1 ? "one example picture" : `the ${pictures} example pictures`} and each phrase that both find.`);
  if (ours.length) {
    const mb = (n) => (n === undefined ? "" : (n / 1e6).toFixed(1));
    lines.push("", ...table(["ours", "step", "dispatches", "moved, MB", "at least, MB", "moved ÷ least", "measured by the card, ms"], ours.flatMap((r) => ["encode", "segment"].filter((s) => r.work[s]).map((s) => {
      const { dispatches, moved, least } = r.work[s];
      return [r.engine + label, s, dispatches, mb(moved), mb(least), least ? (moved / least).toFixed(2) : "", spread(r, `${s}_card_ms`)];
    }))), "", "Moved: the bytes that dispatches read and write, each operand once. At least: weights, picture and results, each once.");
  }
  const loaded = runs.filter((r) => r.load_ms !== undefined);
  if (loaded.length) {
    lines.push("", ...table(["engine", "load, ms", "cached, ms", "first encode, ms", "first segment, ms", "code, MB (brotli −11)", "weights, MB"],
      loaded.map((r) => [r.engine, spread(r, "load_ms"), spread(r, "load_cached_ms"), number(r.first_encode_ms), number(r.first_segment_ms),
        (r.code_bytes / 1e6).toFixed(2), (r.weights_bytes / 1e6).toFixed(2)])));
  }
  return lines;
}
