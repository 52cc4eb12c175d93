// What the other engines' graphs leave, made into masks as model does it, so that masks can be compared.

/**
 * The masks of all phrases at the picture's own pixels, null where the phrase counts as absent. There are more phrases than the
 * model asks for beside common names, and all were trained.
 *
 * @param {{P: Float32Array, S: Float32Array}} maps
 * @param {ImageData} picture
 */
export function masks({ P, S }, inputs, picture) {
  const t = inputs.phrases.length, side = inputs.side, cells = inputs.cells;
  const best = new Float64Array(t);
  for (let q = 0; q < inputs.queries; q++) {
    for (let i = 0; i < t; i++) best[i] = Math.max(best[i], P[q * (t + 1) + i]);
  }
  const { bias, logit, peak, prompts, contrast } = inputs.presence;
  const clamp = (p) => Math.min(Math.max(p, 1e-6), 1 - 1e-6);
  const odds = (p) => Math.log(clamp(p) / (1 - clamp(p)));
  const paint = painter(picture, inputs.epsilon);
  return Array.from(best, (b, i) => {
    const map = S.subarray(i * cells, (i + 1) * cells);
    const score = 1 / (1 + Math.exp(-(bias + (logit + contrast) * odds(b) + peak * odds(top(map, side / 4)) + prompts * Math.log(t))));
    return { score, mask: score >= 0.5 ? paint(tidy(map, side / 4, inputs.theta), inputs.theta) : null };
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

/**
 * What tells whether a map is above a threshold at each pixel of a square picture, by the guided filter of
 * weights/train/edges.py, as kernel.Guide, Guided and Paint define it.
 */
function painter({ data, width: side }, epsilon) {
  const n = side / 4, normal = (v) => (v - 127) / 128;
  const colours = new Float64Array(n * n * 4).fill(1);
  for (let cell = 0; cell < n * n; cell++) {
    for (let c = 0; c < 3; c++) {
      let sum = 0;
      for (let y = 2; y < 6; y++) {
        for (let x = 2; x < 6; x++) {
          const row = Math.min(4 * Math.floor(cell / n) + y, side - 1), column = Math.min(4 * (cell % n) + x, side - 1);
          sum += data[(row * side + column) * 4 + c];
        }
      }
      colours[cell * 4 + c] = normal(sum / 16);
    }
  }
  const products = new Float64Array(n * n * 16);
  for (let cell = 0; cell < n * n; cell++) {
    for (let k = 0; k < 16; k++) products[cell * 16 + k] = colours[cell * 4 + (k >> 2)] * colours[cell * 4 + (k & 3)];
  }
  const matrices = around(products, n, 16);
  for (let cell = 0; cell < n * n; cell++) for (let c = 0; c < 3; c++) matrices[cell * 16 + c * 5] += epsilon * (255 / 128) ** 2;
  const guide = smooth(data, side);
  const taps = Array.from({ length: side }, (_, x) => {
    const at = Math.min(Math.max((x + 0.5) / 4 - 1, 0), n - 1);
    const i = Math.min(Math.floor(at), n - 2);
    return [i, at - i];
  });
  return (map, threshold) => {
    const above = around(Float64Array.from(map, (m) => m > threshold), n, 1);
    const right = around(Float64Array.from(colours, (c, k) => c * (map[k >> 2] - threshold)), n, 4);
    const fits = new Float64Array(n * n * 4);
    for (let cell = 0; cell < n * n; cell++) {
      // Far from a border a map is as it is.
      if (above[cell] > 0.01 && above[cell] < 0.99) fits.set(solve(matrices.subarray(cell * 16, cell * 16 + 16), right.subarray(cell * 4, cell * 4 + 4)), cell * 4);
      else fits[cell * 4 + 3] = map[cell] - threshold;
    }
    const planes = around(fits, n, 4);
    const out = new Uint8Array(side * side);
    for (let y = 0; y < side; y++) {
      const [j, v] = taps[y];
      for (let x = 0; x < side; x++) {
        const [i, u] = taps[x], at = (j * n + i) * 4, pixel = (y * side + x) * 3;
        let sum = 0;
        for (let c = 0; c < 4; c++) {
          const upper = planes[at + c] * (1 - u) + planes[at + 4 + c] * u;
          const lower = planes[at + 4 * n + c] * (1 - u) + planes[at + 4 * n + 4 + c] * u;
          sum += (upper * (1 - v) + lower * v) * (c < 3 ? normal(guide[pixel + c]) : 1);
        }
        out[y * side + x] = sum > 0;
      }
    }
    return out;
  };
}

/** The mean of each of n·n cells of so many numbers and its eight neighbours; those beyond an edge are the nearest on it. */
function around(x, n, numbers) {
  const out = new Float64Array(x.length), on = (i) => Math.min(Math.max(i, 0), n - 1);
  for (let cell = 0; cell < n * n; cell++) {
    for (let dy = -1; dy < 2; dy++) {
      for (let dx = -1; dx < 2; dx++) {
        const from = on(Math.floor(cell / n) + dy) * n + on((cell % n) + dx);
        for (let k = 0; k < numbers; k++) out[cell * numbers + k] += x[from * numbers + k] / 9;
      }
    }
  }
  return out;
}

/** x with A·x = b, by Gauss, for a symmetric positive 4×4 matrix. */
function solve(matrix, b) {
  const a = Float64Array.from(matrix), x = Float64Array.from(b);
  for (let i = 0; i < 4; i++) {
    for (let j = i + 1; j < 4; j++) {
      const f = a[j * 4 + i] / a[i * 4 + i];
      for (let k = i; k < 4; k++) a[j * 4 + k] -= f * a[i * 4 + k];
      x[j] -= f * x[i];
    }
  }
  for (let i = 3; i >= 0; i--) {
    for (let k = i + 1; k < 4; k++) x[i] -= a[i * 4 + k] * x[k];
    x[i] /= a[i * 4 + i];
  }
  return x;
}

/** RGB of a square picture without what is finer than the filter can follow: means of neighbours, up and down and then beside. */
function smooth(data, side) {
  let from = new Uint8Array(side * side * 3);
  for (let i = 0; i < side * side; i++) for (let c = 0; c < 3; c++) from[i * 3 + c] = data[i * 4 + c];
  for (const [dy, dx] of [[1, 0], [0, 1]]) {
    const out = new Uint8Array(from.length), on = (i) => Math.min(Math.max(i, 0), side - 1);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        for (let c = 0; c < 3; c++) {
          const before = from[(on(y - dy) * side + on(x - dx)) * 3 + c], after = from[(on(y + dy) * side + on(x + dx)) * 3 + c];
          out[(y * side + x) * 3 + c] = (((before + after + 1) >> 1) + from[(y * side + x) * 3 + c] + 1) >> 1;
        }
      }
    }
    from = out;
  }
  return from;
}
