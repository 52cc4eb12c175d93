// Add: an invocation adds four numbers.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, @size(24) b: u32,
  m: u32, n: u32, mb: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = (groupOf(id, count) * 64u + me) * 4u;
  if (i >= op.m * op.n) { return; }
  store4(op.dst + i, f4(1u, op.a + i) + f4(2u, op.b + i % (op.mb * op.n)));
}
