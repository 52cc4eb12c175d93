// What the other engines' graphs leave, made into masks as model does it, so that masks can be compared.

/**
 * The masks of all phrases at the picture's own pixels, null where the phrase counts as absent.
 *
 * @param {{P: Float32Array, S: Float32Array}} maps
 */
export function masks({ P, S }, inputs) {
  const t = inputs.phrases.length, side = inputs.side, cells = inputs.cells;
  const best = new Float64Array(t);
  for (let q = 0; q < inputs.queries; q++) {
    for (let i = 0; i < t; i++) best[i] = Math.max(best[i], P[q * (t + 1) + i]);
  }
  const { bias, logit, peak, prompts } = inputs.presence;
  const clamp = (p) => Math.min(Math.max(p, 1e-6), 1 - 1e-6);
  const odds = (p) => Math.log(clamp(p) / (1 - clamp(p)));
  return Array.from(best, (b, i) => {
    const map = S.subarray(i * cells, (i + 1) * cells);
    const score = 1 / (1 + Math.exp(-(bias + logit * odds(b) + peak * odds(top(map, side / 4)) + prompts * Math.log(t))));
    return { score, mask: score >= 0.5 ? paint(tidy(map, side / 4, inputs.theta), side, inputs.theta) : null };
  });
}

/**
 * How far answers are from others: of each phrase that both find, how many pixels both masks have and how many either has;
 * the largest difference of scores; and how many phrases only one of both finds.
 */
export function compare(got, wanted) {
  const found = { masks: [], scores: 0, differing: 0 };
  for (const [i, w] of wanted.entries()) {
    const g = got[i];
    found.scores = Math.max(found.scores, Math.abs(w.score - g.score));
    found.differing += (w.mask !== null) !== (g.mask !== null);
    if (!w.mask || !g.mask) continue;
    let both = 0, either = 0;
    for (let p = 0; p < g.mask.length; p++) {
      both += g.mask[p] & w.mask[p];
      either += g.mask[p] | w.mask[p];
    }
    found.masks.push([both, either]);
  }
  return found;
}

/** The largest value in every second row and column, which is what scores look at. */
function top(map, n) {
  let peak = 0;
  for (let y = 1; y < n; y += 2) for (let x = 1; x < n; x += 2) peak = Math.max(peak, map[y * n + x]);
  return peak;
}

/** A copy of a map without islands below 0.1 % of its cells or 5 % of the largest one, and without holes below 0.1 %. */
function tidy(map, n, threshold) {
  const out = Float32Array.from(map);
  const regions = (inside) => {
    const seen = new Uint8Array(out.length), found = [];
    for (let start = 0; start < out.length; start++) {
      if (seen[start] || !inside(out[start])) continue;
      const cells = [start];
      seen[start] = 1;
      for (let k = 0; k < cells.length; k++) {
        const i = cells[k], x = i % n;
        for (const j of [i - n, i + n, x > 0 ? i - 1 : -1, x < n - 1 ? i + 1 : -1]) {
          if (j < 0 || j >= out.length || seen[j] || !inside(out[j])) continue;
          seen[j] = 1;
          cells.push(j);
        }
      }
      found.push(cells);
    }
    return found;
  };
  const islands = regions((v) => v > threshold);
  const least = Math.max(0.001 * out.length, 0.05 * islands.reduce((a, r) => Math.max(a, r.length), 0));
  for (const r of islands) if (r.length < least) for (const i of r) out[i] = threshold / 2;
  for (const r of regions((v) => !(v > threshold))) {
    if (r.length < 0.001 * out.length) for (const i of r) out[i] = (1 + threshold) / 2;
  }
  return out;
}

/** Whether a map is above the threshold at each pixel: bilinear, cell i centred at 4i+4, as kernel.Paint defines it. */
function paint(map, side, threshold) {
  const n = side / 4;
  const taps = Array.from({ length: side }, (_, x) => {
    const at = Math.min(Math.max((x + 0.5 - 4) / 4, 0), n - 1);
    const i = Math.min(Math.floor(at), n - 2);
    return [i, at - i];
  });
  const out = new Uint8Array(side * side);
  for (let y = 0; y < side; y++) {
    const [j, v] = taps[y];
    for (let x = 0; x < side; x++) {
      const [i, u] = taps[x];
      const top = map[j * n + i] * (1 - u) + map[j * n + i + 1] * u;
      const bottom = map[(j + 1) * n + i] * (1 - u) + map[(j + 1) * n + i + 1] * u;
      out[y * side + x] = top * (1 - v) + bottom * v > threshold;
    }
  }
  return out;
}
