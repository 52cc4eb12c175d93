// L2Norm: LANES invocations share a row and take four numbers at a time.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, @size(24) center: u32,
  m: u32, @size(60) n: u32,
  scale: f32,
}

fn number(row: u32, n: u32) -> vec4<f32> {
  let x = f4(1u, op.a + row + n);
  if (op.center == ABSENT) { return x; }
  return x - f4(2u, op.center + n);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let m = (groupOf(id, count) * 64u + me) / LANES;
  let row = min(m, op.m - 1u) * op.n;
  let first = me % LANES * 4u;
  var q = 0.0;
  for (var n = first; n < op.n; n += 4u * LANES) {
    let t = number(row, n);
    q += dot(t, t);
  }
  let r = op.scale / max(sqrt(rowSum(me, vec4(q)).x), 1e-12);
  if (m >= op.m) { return; }
  for (var n = first; n < op.n; n += 4u * LANES) { store4(op.dst + row + n, number(row, n) * r); }
}
