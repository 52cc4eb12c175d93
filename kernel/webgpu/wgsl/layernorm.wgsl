// LayerNorm: LANES invocations share a row and take four numbers at a time.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, res: u32, gamma: u32, @size(16) beta: u32,
  m: u32, @size(60) n: u32,
  eps: f32,
}

fn number(i: u32) -> vec4<f32> {
  let x = f4(1u, op.a + i);
  if (op.res == ABSENT) { return x; }
  return x + f4(2u, op.res + i);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let m = (groupOf(id, count) * 64u + me) / LANES;
  let row = min(m, op.m - 1u) * op.n;
  let first = me % LANES * 4u;
  var s = vec4(0.0);
  for (var n = first; n < op.n; n += 4u * LANES) { s += number(row + n); }
  let mean = rowSum(me, vec4(dot(s, vec4(1.0)))).x / f32(op.n);
  var q = 0.0;
  for (var n = first; n < op.n; n += 4u * LANES) {
    let t = number(row + n) - mean;
    q += dot(t, t);
  }
  let variance = rowSum(me, vec4(q)).x / f32(op.n);
  let r = 1.0 / sqrt(variance + op.eps);
  if (m >= op.m) { return; }
  for (var n = first; n < op.n; n += 4u * LANES) {
    store4(op.dst + row + n, (number(row + n) - mean) * r * f4(3u, op.gamma + n) + f4(4u, op.beta + n));
  }
}
