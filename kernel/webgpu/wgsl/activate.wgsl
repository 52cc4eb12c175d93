// Activate: an invocation takes four numbers. A copy moves bits.
struct Op {
  zero: u32, act: u32,
  dst: u32, @size(28) a: u32,
  n: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = (groupOf(id, count) * 64u + me) * 4u;
  if (i >= op.n) { return; }
  let x = at4(1u, op.a + i);
  if (op.act == 0u) {
    put4(op.dst + i, x);
  } else {
    store4(op.dst + i, activate(bitcast<vec4<f32>>(x)));
  }
}
