// L1Norm: LANES invocations share a row and take four numbers at a time.
struct Op {
  zero: u32, act: u32,
  dst: u32, @size(28) a: u32,
  m: u32, n: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let m = (groupOf(id, count) * 64u + me) / LANES;
  let row = min(m, op.m - 1u) * op.n;
  let first = me % LANES * 4u;
  var s = vec4(0.0);
  for (var n = first; n < op.n; n += 4u * LANES) { s += f4(1u, op.a + row + n); }
  let r = 1.0 / max(rowSum(me, vec4(dot(s, vec4(1.0)))).x, 1e-12);
  if (m >= op.m) { return; }
  for (var n = first; n < op.n; n += 4u * LANES) { store4(op.dst + row + n, f4(1u, op.a + row + n) * r); }
}
