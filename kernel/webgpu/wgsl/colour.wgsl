// Colour: an invocation takes four labels, a word.
struct Op {
  zero: u32, act: u32,
  dst: u32, label: u32, @size(24) palette: u32,
  n: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = (groupOf(id, count) * 64u + me) * 4u;
  if (i >= op.n) { return; }
  let labels = at(1u, op.label + i / 4u);
  for (var b = 0u; b < min(4u, op.n - i); b++) {
    put(op.dst + i + b, at(2u, op.palette + ((labels >> (8u * b)) & 255u)));
  }
}
