// Products of float32s, for tile.wgsl and rows.wgsl: MatMul. A step is one k.
// How numbers are kept and multiplied is in single.wgsl and half.wgsl.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, b: u32, bias: u32, @size(16) res: u32,
  m: u32, n: u32, k: u32, lda: u32, ldb: u32, ldd: u32, ldr: u32,
}

alias Sum = vec4<f32>;
fn steps() -> u32 { return op.k; }
fn rowOfA(m: u32) -> u32 { return op.a + m * op.lda; }
// bOf is where row k of a panel of eight columns of B starts.
fn bOf(panel: u32, k: u32) -> u32 {
  if (op.ldb == 0u) { return op.b + (panel * op.k + k) * 8u; }
  return op.b + k * op.ldb + panel * 8u;
}

fn finish(m: u32, panel: u32, low: Sum, high: Sum) {
  finish4(m, panel * 8u, low);
  finish4(m, panel * 8u + 4u, high);
}
fn finish4(m: u32, n: u32, s: Sum) {
  var y = s;
  if (op.bias != ABSENT) { y += f4(3u, op.bias + n); }
  y = activate(y);
  if (op.res != ABSENT) { y += f4(4u, op.res + m * op.ldr + n); }
  store4(op.dst + m * op.ldd + n, y);
}
