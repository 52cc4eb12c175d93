// UpsampleAdd: an invocation makes four channels of one cell.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, @size(24) res: u32,
  h: u32, w: u32, c: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  let fours = op.c / 4u;
  if (i >= 4u * op.h * op.w * fours) { return; }
  let c = i % fours * 4u;
  let x = i / fours % (2u * op.w);
  let y = i / fours / (2u * op.w);
  let x1 = x / 2u;
  let y1 = y / 2u;
  // The input before, unless the output is an input itself or the first one.
  let x0 = x1 - select(0u, 1u, x % 2u == 0u && x > 0u);
  let y0 = y1 - select(0u, 1u, y % 2u == 0u && y > 0u);
  let s = f4(1u, op.a + (y0 * op.w + x0) * op.c + c) + f4(1u, op.a + (y0 * op.w + x1) * op.c + c)
        + f4(1u, op.a + (y1 * op.w + x0) * op.c + c) + f4(1u, op.a + (y1 * op.w + x1) * op.c + c);
  store4(op.dst + 4u * i, f4(2u, op.res + 4u * i) + 0.25 * s);
}
