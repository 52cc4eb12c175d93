// Products of bytes, for tile.wgsl and rows.wgsl: MatMul8. A step is a word,
// four k. Sums are exact, and finish rounds each operation by itself, so the
// bits are those of kernel/scalar.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, b: u32, rows: u32, @size(16) res: u32,
  m: u32, n: u32, k: u32, ldd: u32, ldr: u32, bytes: u32, packed: u32,
}

alias Sum = vec4<i32>;
alias Part = vec4<u32>;
fn keep(v: vec4<u32>) -> Part { return v; }
fn madd(s: Sum, a: u32, b: vec4<u32>) -> Sum { return s + vec4(dot4(a, b.x), dot4(a, b.y), dot4(a, b.z), dot4(a, b.w)); }
fn steps() -> u32 { return op.k / 4u; }
fn rowOfA(m: u32) -> u32 { return op.a + m * steps(); }
fn bOf(panel: u32, k: u32) -> u32 { return op.b + 3u * op.n + (panel * steps() + k) * 8u; }

fn finish(m: u32, panel: u32, low: Sum, high: Sum) {
  let n = panel * 8u;
  let y0 = scaled(m, n, low);
  let y1 = scaled(m, n + 4u, high);
  if (op.bytes != 0u) {
    put2(op.dst + (m * op.ldd + n) / 4u, vec2(round7(y0), round7(y1)));
    return;
  }
  finish4(m, n, y0);
  finish4(m, n + 4u, y1);
}
fn scaled(m: u32, n: u32, s: Sum) -> vec4<f32> {
  let scale = f4(2u, op.b + n);
  let bias = f4(2u, op.b + op.n + n);
  if (op.rows == ABSENT) { return once(vec4<f32>(s) * scale) + bias; }
  let sums = f4(2u, op.b + 2u * op.n + n);
  let row = f(3u, op.rows + 2u * m);
  let low = f(3u, op.rows + 2u * m + 1u);
  return once(vec4<f32>(s) * once(row * scale)) + once(once(low * sums) + bias);
}
fn finish4(m: u32, n: u32, s: vec4<f32>) {
  var y = activate(s);
  if (op.res != ABSENT) { y += f4(4u, op.res + m * op.ldr + n); }
  if (op.packed != 0u) { putPacked(op.dst, (n / 8u * op.m + m) * 8u + n % 8u, y); } else { store4(op.dst + m * op.ldd + n, y); }
}
