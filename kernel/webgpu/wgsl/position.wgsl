// AddPosition: an invocation adds four numbers.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, py: u32, @size(20) px: u32,
  h: u32, w: u32, c: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = (groupOf(id, count) * 64u + me) * 4u;
  if (i >= op.h * op.w * op.c) { return; }
  let half = op.c / 2u;
  let c = i % op.c;
  let cell = i / op.c;
  var p: vec4<f32>;
  if (c < half) {
    p = f4(2u, op.py + cell / op.w * half + c);
  } else {
    p = f4(3u, op.px + cell % op.w * half + c - half);
  }
  store4(op.dst + i, f4(1u, op.a + i) + p);
}
