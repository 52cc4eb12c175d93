// Smooth: an invocation makes a pixel, whose four bytes it takes together.
struct Op {
  zero: u32, act: u32,
  dst: u32, @size(28) a: u32,
  h: u32, w: u32,
}

// Bytes half between two become the upper one.
fn mean(a: u32, b: u32) -> u32 { return (a | b) - (((a ^ b) >> 1u) & 0x7f7f7f7fu); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  if (i >= op.h * op.w) { return; }
  let y = i / op.w;
  let x = i % op.w;
  let up = op.a + (max(y, 1u) - 1u) * op.w;
  let here = op.a + y * op.w;
  let down = op.a + min(y + 1u, op.h - 1u) * op.w;
  var columns: array<u32, 3>;
  for (var j = 0u; j < 3u; j++) {
    let column = min(max(x + j, 1u) - 1u, op.w - 1u);
    columns[j] = mean(mean(at(1u, up + column), at(1u, down + column)), at(1u, here + column));
  }
  put(op.dst + i, mean(mean(columns[0], columns[2]), columns[1]));
}
