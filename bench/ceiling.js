// Bare matrix products in WebAssembly: what the machine's vector unit does when nothing but the product is computed.
// A module is made for each shape, so that all sizes are constants in it: as good as such a loop gets.
//
//   f32     C = A·B, a fused multiply-add (relaxed SIMD) for each four products
//   int8    bytes 0..127 by int8, the relaxed dot product of four
//   int16   the same numbers as 16 bits, the dot product of two that every engine has
//
// Tiles are 4 or 6 rows by 8 columns, whichever is faster for the shape; B lies in panels of 8 columns; a block of rows of A
// stays in the first caches while all panels pass. Each ends as a layer does: times a scale, plus a bias, clamped; the
// integer ones to bytes. Rows that do not fill a tile are computed as if they did.

const leb = (n) => {
  const out = [];
  do {
    out.push((n & 127) | (n > 127 ? 128 : 0));
    n >>>= 7;
  } while (n);
  return out;
};
const sleb = (n) => { // positive numbers only, which is all there are
  const out = leb(n);
  if (out.at(-1) & 64) {
    out[out.length - 1] |= 128;
    out.push(0);
  }
  return out;
};
const get = (i) => [0x20, ...leb(i)], set = (i) => [0x21, ...leb(i)], tee = (i) => [0x22, ...leb(i)];
const i32 = (n) => [0x41, ...sleb(n)], add = [0x6a], sub = [0x6b];
const simd = (op, ...rest) => [0xfd, ...leb(op), ...rest];
const at = (offset) => [0, ...leb(offset)]; // a memory operand without alignment
const load = (offset) => simd(0, ...at(offset)), splat = (offset) => simd(9, ...at(offset)), store = (offset) => simd(11, ...at(offset));
const floats = (x) => simd(12, ...Array(4).fill([...new Uint8Array(new Float32Array([x]).buffer)]).flat());
const op = {
  mulAdd: simd(0x105), mul: simd(230), addFloats: simd(228), pmin: simd(234), pmax: simd(235), convert: simd(250),
  truncate: simd(0x101), narrow16: simd(133), narrow8: simd(102), dot8: simd(0x113), dot16: simd(186), addInts: simd(174),
};
const storeHalf = (offset) => simd(91, ...at(offset), 0);

export const KINDS = {
  f32: { bytes: 4, depth: 1, out: 4 },
  int8: { bytes: 1, depth: 4, out: 1 },
  int16: { bytes: 2, depth: 2, out: 1 },
};

/** run(a, b, c, scales, tiles): `tiles` tiles of rows by all columns. */
function build(kind, rows, n, k) {
  const { bytes, depth, out } = KINDS[kind];
  const row = k * bytes, panel = 8 * k * bytes, line = n * out;
  // Parameters, then what changes in the loops, then the sums and two columns of B.
  const [a, b, c, scales, tiles] = [0, 1, 2, 3, 4];
  const [panels, pa, pb, pc, t, q, end] = [5, 6, 7, 8, 9, 10, 11];
  const sum = (r, j) => 12 + 2 * r + j, column = (j) => 12 + 2 * rows + j, value = 14 + 2 * rows;
  const code = [];
  const put = (...parts) => code.push(...parts.flat());
  const loop = (body) => {
    put([0x03, 0x40]);
    body();
    put([0x0b]);
  };
  /** The innermost loops' ends: while counter−1 is above 0. */
  const again = (counter) => put(get(counter), i32(1), sub, tee(counter), [0x0d, 0]);
  const step = (local, by) => put(get(local), i32(by), add, set(local));
  put(i32(n / 8), set(panels));
  loop(() => {
    put(get(a), set(pa), get(c), set(pc), get(tiles), set(t), get(b), i32(panel), add, set(end));
    loop(() => {
      for (let r = 0; r < rows; r++) {
        for (let j = 0; j < 2; j++) put(kind === "f32" ? [...get(scales), ...load(n * 4 + 16 * j)] : floats(0), set(sum(r, j)));
      }
      put(get(b), set(pb), get(pa), set(q));
      loop(() => {
        for (let j = 0; j < 2; j++) put(get(pb), load(16 * j), set(column(j)));
        for (let r = 0; r < rows; r++) {
          put(get(q), splat(r * row), set(value));
          for (let j = 0; j < 2; j++) {
            if (kind === "f32") put(get(value), get(column(j)), get(sum(r, j)), op.mulAdd);
            if (kind === "int8") put(get(column(j)), get(value), get(sum(r, j)), op.dot8);
            if (kind === "int16") put(get(column(j)), get(value), op.dot16, get(sum(r, j)), op.addInts);
            put(set(sum(r, j)));
          }
        }
        step(q, depth * bytes);
        put(get(pb), i32(32), add, tee(pb), get(end), [0x49, 0x0d, 0]); // while pb < end
      });
      for (let r = 0; r < rows; r++) {
        if (kind !== "f32") put(get(pc));
        for (let j = 0; j < 2; j++) {
          if (kind === "f32") {
            put(get(pc), floats(6), floats(0), get(sum(r, j)), op.pmax, op.pmin, store(r * line + 16 * j));
            continue;
          }
          put(floats(127), floats(0), get(sum(r, j)), op.convert, get(scales), load(16 * j), get(scales), load(n * 4 + 16 * j), op.mulAdd, op.pmax, op.pmin, op.truncate);
        }
        if (kind !== "f32") put(op.narrow16, tee(value), get(value), op.narrow8, storeHalf(r * line));
      }
      step(pa, rows * row);
      step(pc, rows * line);
      again(t);
    });
    step(b, panel);
    step(c, 8 * out);
    step(scales, 32);
    again(panels);
  });
  const section = (id, body) => [id, ...leb(body.length), ...body];
  const locals = [2, 7, 0x7f, ...leb(3 + 2 * rows), 0x7b];
  const body = [...locals, ...code, 0x0b];
  const name = (s) => [s.length, ...new TextEncoder().encode(s)];
  return new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 5, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0]),
    ...section(2, [1, ...name("e"), ...name("m"), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name("run"), 0, 0]),
    ...section(10, [1, ...leb(body.length), ...body])]);
}

const memory = new WebAssembly.Memory({ initial: 1024 });
const BLOCK = 32 << 10; // bytes of rows of A that are worked on at a time

/** The code of a product with n columns and depth k. */
const loop = (kind, rows, n, k) => new WebAssembly.Instance(new WebAssembly.Module(build(kind, rows, n, k)), { e: { m: memory } }).exports.run;

/** What computes a product of m rows, n columns and depth k, f, and where its numbers lie. */
function product(kind, rows, m, n, k, run = loop(kind, rows, n, k)) {
  const { bytes, depth, out } = KINDS[kind];
  const tiles = Math.ceil(m / rows), each = Math.max(1, Math.floor(BLOCK / (rows * k * bytes)));
  const scales = 64, b = scales + 8 * n + 64, a = (b + n * k * bytes + 127) & ~63, c = (a + tiles * rows * k * bytes + 127) & ~63;
  const size = c + tiles * rows * n * out;
  if (size > memory.buffer.byteLength) memory.grow(Math.ceil((size - memory.buffer.byteLength) / 65536));
  // What an earlier product left could be floats so small that processors take a hundred times as long over them.
  new Uint8Array(memory.buffer, b, c - b).fill(1);
  if (kind === "f32") new Float32Array(memory.buffer, b, (c - b) >> 2).fill(0.01);
  new Float32Array(memory.buffer, scales, 2 * n).fill(0.01);
  const f = () => {
    for (let t = 0; t < tiles; t += each) run(a + t * rows * k * bytes, b, c + t * rows * n * out, scales, Math.min(each, tiles - t));
  };
  return { f, a, b, c, scales };
}

/** The shortest time of one product in ms. */
export function time(kind, m, n, k) {
  const WARM = 40, PATIENCE = 40, SAMPLES = 5; // ms, ms, at the least
  let best = Infinity;
  for (const rows of [4, 6]) {
    // The browser's optimising compiler comes after many calls, and then takes a while: calls are cheap with one tile of rows.
    const depth = KINDS[kind].depth * Math.ceil(k / KINDS[kind].depth), run = loop(kind, rows, n, depth);
    const small = product(kind, rows, rows, n, depth, run).f, { f } = product(kind, rows, m, n, depth, run);
    for (const stop = performance.now() + WARM; performance.now() < stop; ) small();
    const stop = performance.now() + PATIENCE;
    for (let samples = 0, runs = 1; samples < SAMPLES || performance.now() < stop; ) {
      const start = performance.now();
      for (let i = 0; i < runs; i++) f();
      const took = performance.now() - start;
      if (took < 1) runs *= 2; // clocks are coarse
      else {
        best = Math.min(best, took / runs);
        samples++;
      }
    }
  }
  return best;
}

/** The kinds of loops that compute a product in this engine: early ones have a relaxed dot product that is wrong. */
export const working = () => Object.keys(KINDS).filter((kind) => [4, 6].every((rows) => right(kind, rows)));

function right(kind, rows) {
  const m = 12, n = 16, k = 24;
  const A = (i, p) => (i * i + 3 * p * i + p) % 4, B = (p, j) => ((5 * p * j + 11 * j + p) % 3) - 1;
  const { bytes, depth, out } = KINDS[kind];
  const { f, a, b, c, scales } = product(kind, rows, m, n, k);
  const numbers = (at, size) => new { 1: Uint8Array, 2: Int16Array, 4: Float32Array }[size](memory.buffer, at);
  const inA = numbers(a, bytes), inB = numbers(b, bytes), scale = numbers(scales, 4), got = numbers(c, out);
  for (let i = 0; i < m; i++) for (let p = 0; p < k; p++) inA[i * k + p] = A(i, p);
  for (let p = 0; p < k; p++) {
    for (let j = 0; j < n; j++) inB[((j >> 3) * (k / depth) + Math.floor(p / depth)) * 8 * depth + (j & 7) * depth + (p % depth)] = B(p, j);
  }
  scale.fill(1, 0, n);
  scale.fill(3, n, 2 * n); // the bias
  f();
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let want = 3;
      for (let p = 0; p < k; p++) want += A(i, p) * B(p, j);
      if (got[i * n + j] !== Math.min(Math.max(want, 0), kind === "f32" ? 6 : 127)) return false;
    }
  }
  return true;
}
